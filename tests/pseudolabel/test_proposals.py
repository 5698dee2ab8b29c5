"""The labeler `sam_clip` in its stage: masks of propose, and configs without them."""

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import zarr

from pipeline.config import config as config_file
from pipeline.console import Console
from pipeline.engine.stage import Context
from stages.graph import GRAPH
from stages.propose.stage import ProposeStage

Call = Callable[..., CompletedProcess[str]]


@pytest.fixture
def values(
    tiny: dict[str, Any], propose: dict[str, Any], clip_folder: Callable[[str], Path]
) -> dict[str, Any]:
    """A config of both labelers over web images of 32 x 24 pixels and the labeled ones."""
    model = f"local-dir:{clip_folder('vit')}"
    clip = {"model": model, "window_px": 32, "stride_px": 16}
    sam = {"name": "sam_clip", "power": 0, **clip}  # a random SAM thinks little of its masks
    labelers = {"dense": {"name": "dense_clip", **clip}, "sam": sam}
    labels = {"size_px": 48, "labelers": labelers}
    return {**tiny, "propose": propose, "pseudolabel": labels}


@pytest.fixture
def call(call: Call, values: dict[str, Any], write_config: Callable[..., Path]) -> Call:
    """The command line with the current config: ``call("run", templates=...)``."""

    def command(verb: str, *overrides: str, **vocabulary: Any) -> CompletedProcess[str]:
        return call(verb, write_config(values, **vocabulary), *overrides)

    return command


def labels(tmp_path: Path, labeler: str) -> pd.DataFrame:
    folder = tmp_path / "workspace/manifests/tiny/pseudo_labels" / f"labeler={labeler}"
    return pd.read_parquet(folder).sort_values("row")


def confidences(workspace: Path, rows: pd.DataFrame) -> npt.NDArray[np.uint8]:
    group = zarr.open_group(workspace / rows["store"].iloc[0], mode="r")
    return np.asarray(group["confidence"])[rows["row"]]


def states(call: Call, *overrides: str) -> dict[str, dict[str, Any]]:
    stages = json.loads(call("status --json", *overrides).stdout)["stages"]
    return {stage["name"]: stage for stage in stages}


def test_masks_change_the_labels(call: Call, tmp_path: Path) -> None:
    done = call("run")
    assert done.returncode == 0, done.stderr
    dense, sam = labels(tmp_path, "dense"), labels(tmp_path, "sam")
    assert (sam["status"] == "ok").all()
    assert sam["row"].tolist() == dense["row"].tolist()
    maps = [confidences(tmp_path / "workspace", rows) for rows in (dense, sam)]
    assert (maps[0] != maps[1]).any(axis=(1, 2)).all()
    assert "pseudolabel: nothing to do, 6 fresh" in call("run").stderr


def test_another_class_list_leaves_the_masks(call: Call) -> None:
    call("run")
    printed = call("run", templates=["a {}"]).stderr
    assert "propose: nothing to do, 2 fresh" in printed
    assert "pseudolabel: vocabulary.templates" in printed


def test_other_masks_make_only_labels_that_need_them_stale(call: Call, tmp_path: Path) -> None:
    call("run")
    before = labels(tmp_path, "sam")["store"].iloc[0]
    found = states(call, "propose.points_per_side=3")
    assert found["propose"]["state"] == "stale"
    assert "propose.points_per_side 4 -> 3: shards 0, 1" in json.dumps(found["pseudolabel"])
    printed = call("run", "propose.points_per_side=3").stderr
    assert "pseudolabel: propose.points_per_side 4 -> 3: shards 0, 1" in printed
    assert labels(tmp_path, "sam")["store"].iloc[0] != before  # a training on those goes on


def test_an_image_without_masks_is_a_failed_row(
    call: Call,
    values: dict[str, Any],
    write_config: Callable[..., Path],
    tmp_path: Path,
    data: Path,
) -> None:
    call("run ingest")
    loaded = config_file.load(write_config(values), {stage.name: stage.Config for stage in GRAPH})
    stage = ProposeStage(loaded.sections["propose"], Context(loaded, Console()))
    units = stage.plan()
    image = data / "ood/images/0.png"
    image.rename(tmp_path / "away.png")
    stage.run(units)
    (tmp_path / "away.png").rename(image)
    done = call("run --only pseudolabel")
    assert "warning: propose is not fresh; pseudolabel uses its present output" in done.stderr
    assert labels(tmp_path, "dense")["status"].tolist() == ["ok"] * 4
    rows = labels(tmp_path, "sam").set_index("status")
    assert rows.index.value_counts().to_dict() == {"ok": 3, "failed": 1}
    assert rows.loc["failed", "error_message"] == (
        "no SAM masks for the current version of this image; run `propose`"
    )
    again = call("run pseudolabel").stderr  # now that the image is back
    assert "propose: 1 image could not be read: shard " in again
    assert "pseudolabel: 1 image could not be read: sam shard " in again
    assert labels(tmp_path, "sam")["status"].tolist() == ["ok"] * 4


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no section": (
        {"propose": None},
        "{config}: pseudolabel.labelers.sam: the labeler needs SAM's masks, but the config has no "
        "section `propose`; add `propose: {{model: ...}}` to it",
    ),
    "roles": (
        {"pseudolabel.roles": ["ood", "unlabeled"]},
        "{config}: propose.roles: pseudolabel.labelers.sam needs SAM's masks of the role unlabeled "
        "too; add it",
    ),
    "size": (
        {"pseudolabel.size_px": 64},
        "{config}: propose.size_px: masks of 48 px, but pseudolabel.labelers.sam needs masks of "
        "the labels' size; set it to pseudolabel.size_px, 64",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_config_without_the_masks_is_one_line(
    call: Call, values: dict[str, Any], tmp_path: Path, kind: str
) -> None:
    changes, text = WRONG[kind]
    for key, value in changes.items():
        section, _, own = key.partition(".")
        if own:
            values[section][own] = value
        else:
            del values[section]
    for verb in ("run ingest pseudolabel", "status"):
        done = call(verb)
        assert done.returncode == 1
        assert done.stderr == f"error: {text.format(config=tmp_path / 'config.yaml')}\n"


def test_labelers_that_need_no_masks_need_no_section(call: Call, values: dict[str, Any]) -> None:
    del values["propose"], values["pseudolabel"]["labelers"]["sam"]
    assert call("run").returncode == 0
    assert "propose" not in states(call)


def test_labels_of_masks_of_other_keys_are_stale_from_the_beginning(call: Call) -> None:
    """Their facts are those of the masks that were read, not of those that the config asks for."""
    fewer = "propose.points_per_side=2"
    assert call("run").returncode == 0
    done = call("run --only pseudolabel", fewer)
    assert done.returncode == 0
    assert "warning: propose is not fresh; pseudolabel uses its present output" in done.stderr
    changed = "propose.points_per_side 4 -> 2"
    assert any(
        reason.startswith(changed) for reason in states(call, fewer)["pseudolabel"]["reasons"]
    )
    assert call("run propose", fewer).returncode == 0
    assert any(
        reason.startswith(changed) for reason in states(call, fewer)["pseudolabel"]["reasons"]
    )
    assert call("run", fewer).returncode == 0
    assert states(call, fewer)["pseudolabel"]["state"] == "fresh"


def test_masks_that_are_made_again_on_request_make_labels_of_them_stale(call: Call) -> None:
    assert call("run").returncode == 0
    assert call("run propose --force").returncode == 0
    reasons = states(call)["pseudolabel"]["reasons"]
    assert reasons == [
        "proposals made again on request (--force): shards 0, 1",
        "labels of sam made again on request (--force): sam report card",
    ]
    assert call("run").returncode == 0
    assert states(call)["pseudolabel"]["state"] == "fresh"
