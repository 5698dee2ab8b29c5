import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch
import zarr
from PIL import Image

from pipeline.config.config_section import Section
from pipeline.config.vocabulary import Vocabulary
from stages.pseudolabel.labelers.base import ImageBatch
from stages.pseudolabel.labelers.files import Files

Call = Callable[..., CompletedProcess[str]]
SCHEME = {"0": "background", "10": "disc", "20": "box", "30": "ignore"}


@pytest.fixture
def call(call: Call, tiny: dict[str, Any], write_config: Callable[..., Path], data: Path) -> Call:
    """Runs with label files of values 10 and 20 for the first of two web images."""
    masks = data / "ood/masks"
    masks.mkdir()
    values = np.zeros((24, 32), np.uint8)
    values[:, :8], values[:8, 16:], values[-1] = 10, 20, 30
    Image.fromarray(values).save(masks / "0.png")
    web = tiny["ingest"]["sources"]["ood"]
    web["source"]["masks"] = "ood/masks"
    web["label_scheme"] = "tool"
    labels = {"size_px": 48, "labelers": {"truth": "files"}}

    def command(verb: str, **vocabulary: Any) -> CompletedProcess[str]:
        schemes = {"label_schemes": {"tool": SCHEME}}
        config = write_config({**tiny, "pseudolabel": labels}, **{**schemes, **vocabulary})
        return call(verb, config)

    return command


@pytest.fixture
def rows(tmp_path: Path) -> Callable[[], pd.DataFrame]:
    """Manifest rows of the labels, by the name of the image's role and file."""

    def read() -> pd.DataFrame:
        manifests = tmp_path / "workspace/manifests/tiny"
        images = pd.read_parquet(manifests / "images").set_index("row")
        table = pd.read_parquet(manifests / "pseudo_labels").sort_values("row")
        uris = images.loc[table["row"], "uri"]
        names = [f"{Path(uri).parts[-3]}/{Path(uri).stem}" for uri in uris]
        return table.set_axis(names)

    return read


def stored(tmp_path: Path, table: pd.DataFrame, name: str) -> list[npt.NDArray[np.uint8]]:
    """Mask and confidence of an image."""
    store, row = table["store"].to_dict()[name], table["row"].to_dict()[name]
    group = zarr.open_group(tmp_path / "workspace" / store, mode="r")
    return [np.asarray(group[array])[row] for array in ("mask", "confidence")]


def test_files_become_labels_and_missing_ones_failed_rows(
    call: Call, rows: Callable[[], pd.DataFrame], tmp_path: Path, data: Path
) -> None:
    done = call("run")
    assert done.returncode == 0, done.stderr
    table = rows()
    mask, confidence = stored(tmp_path, table, "ood/0")
    expected = np.full((48, 48), 255)
    expected[:36], expected[:36, :12], expected[:12, 24:], expected[34:36] = 0, 1, 2, 255
    # 24 rows become 36: the boundary of the last lies between two of them
    assert np.array_equal(mask[:34], expected[:34])
    assert (mask[35:] == 255).all()
    assert (confidence[:8] == 255).all()
    assert (confidence[9:] == 0).all()
    assert table.loc["ood/0", "mean_confidence"] == 1
    labeled = np.asarray(Image.open(data / "labeled/masks/0.png").resize((48, 36), 0))
    assert np.array_equal(stored(tmp_path, table, "labeled/0")[0][:36], labeled)

    assert table["status"].to_dict() == {
        **{"labeled/0": "ok", "labeled/1": "ok"},
        **{"ood/0": "ok", "ood/1": "failed"},
    }
    assert table.loc["ood/1", "error_message"] == "this image has no label file"
    assert (stored(tmp_path, table, "ood/1")[0] == 255).all()


def test_another_file_or_reading_makes_labels_stale_and_a_prompt_does_not(
    call: Call, rows: Callable[[], pd.DataFrame], tmp_path: Path, data: Path
) -> None:
    call("run")
    assert "pseudolabel: nothing to do, 3 fresh" in call("run", templates=["a {}"]).stderr
    shutil.copy(data / "ood/masks/0.png", data / "ood/masks/1.png")
    printed = call("run").stderr
    assert "pseudolabel: images changed: truth shard 1" in printed
    assert (rows()["status"] == "ok").all()
    printed = call("run", label_schemes={"tool": {**SCHEME, "10": "box"}}).stderr
    assert "pseudolabel: vocabulary.label_schemes.tool.10 1 -> 2: shards 0, 1" in printed
    mask, _ = stored(tmp_path, rows(), "ood/0")
    assert (mask[20:30, :12] == 2).all()


def test_it_has_no_keys(
    maskmill: Call, tiny: dict[str, Any], write_config: Callable[..., Path]
) -> None:
    labelers = {"people": {"name": "files", "masks": "x"}}
    config = write_config({**tiny, "pseudolabel": {"labelers": labelers}})
    printed = maskmill("status", "--config", config)
    key = "pseudolabel.labelers.people.masks"
    assert printed.stderr.endswith(f"{key}: unknown key; there are none; leave it out\n")


def test_labels_of_several_sizes_lie_on_their_canvases() -> None:
    classes = [{"name": name, "color": "#000000"} for name in ("cat", "dog")]
    labeler = Files(Section(), Vocabulary.model_validate({"name": "test", "classes": classes}))
    sizes = ((2, 4), (4, 1))
    files = (torch.ones(2, 4, dtype=torch.uint8), torch.zeros(4, 1, dtype=torch.uint8))
    files[0][0, 0] = 255
    batch = ImageBatch(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), sizes, label_files=files)
    labels = labeler.label(batch)
    expected = torch.full((2, 4, 4), 255)
    expected[0, :2], expected[0, 0, 0], expected[1, :, :1] = 1, 255, 0
    assert torch.equal(labels.mask, expected)
    assert labels.mask.dtype == torch.int64
    assert torch.equal(labels.confidence, (expected != 255).float())
