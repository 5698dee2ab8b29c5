from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.object_store.twins import Command, Twin, on_disk, upload


@pytest.fixture
def every_stage(stage_one: dict[str, Any]) -> dict[str, Any]:
    """The same, a training of two steps, and its scores."""
    own = {"model": "small_unet", "perturbation": "unimatch", "crop_px": 32, "batch_size": 2}
    stored = {"name": "stored", "labeler": "truth", "on": "ood"}
    variants = {"both": {"label_sources": [{"name": "student", "threshold": 0.9}, stored]}}
    train = {**own, "steps": 2, "checkpoint_every": 1, "log_every": 1, "variants": variants}
    sources = {**stage_one["ingest"]["sources"]}
    for role, place in (("ood", "labeled"), ("labeled", "val")):
        folders = {"images": f"{place}/images", "masks": f"{place}/masks"}
        sources[role] = {"role": role, "source": {"name": "folder", **folders}}
    del sources["val"]
    ingest = {**stage_one["ingest"], "sources": sources}
    pseudolabel = {**stage_one["pseudolabel"], "roles": ["ood"]}
    return {
        **stage_one,
        **{"ingest": ingest, "pseudolabel": pseudolabel, "train": train, "evaluate": {}},
    }


@pytest.fixture
def twin(
    data: Path, bucket: str, write_config: Callable[..., Path], maskmill: Command
) -> Callable[[dict[str, Any]], Twin]:
    """Runs a config on the disk, and puts its data into the bucket."""

    def make(values: dict[str, Any]) -> Twin:
        done = maskmill("run", "--config", write_config(values))
        assert done.returncode == 0, done.stderr
        upload(data, f"{bucket}/data")
        work = f"{bucket}/work"
        config = write_config({**values, "workspace": work, "data": f"{bucket}/data"})
        return Twin(config, on_disk(Path(values["workspace"])), work)

    return make
