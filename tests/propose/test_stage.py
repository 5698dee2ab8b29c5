import json
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from pycocotools import mask as coco
from safetensors.torch import load_file, save_file
from segment_anything.modeling import Sam

from pipeline.config import config as config_file
from pipeline.console import Console
from pipeline.engine.stage import Context
from pipeline.records.tables import PROPOSALS
from stages.graph import GRAPH
from stages.labels.images import fitted_pixels
from stages.propose.generator.mask_generator import MaskGenerator
from stages.propose.output import proposals_part, read_proposals
from stages.propose.stage import ProposeStage

Call = Callable[..., CompletedProcess[str]]
OPEN: dict[str, Any] = {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.0, "points_per_side": 4}


@pytest.fixture
def config(
    tiny: dict[str, Any], propose: dict[str, Any], write_config: Callable[..., Path]
) -> Path:
    """Proposes masks in web images of 32 x 24 pixels and the labeled ones, a shard each."""
    return write_config({**tiny, "propose": propose})


@pytest.fixture
def checkpoint(propose: dict[str, Any]) -> Path:
    return Path(propose["weights"])


@pytest.fixture
def call(call: Call, config: Path) -> Call:
    """The command line with the config: ``call("run", "run=other")``."""
    return lambda verb, *overrides: call(verb, config, *overrides)


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    return tmp_path / "workspace/manifests/tiny"


def state(call: Call, *overrides: str) -> str:
    stages = json.loads(call("status --json", *overrides).stdout)["stages"]
    return {stage["name"]: str(stage["state"]) for stage in stages}["propose"]


def test_every_image_has_the_masks_of_the_generator(
    call: Call, manifests: Path, build_sam: Callable[[], Sam]
) -> None:
    done = call("run")
    assert done.returncode == 0, done.stderr
    rows = pd.read_parquet(manifests / "proposals")
    images = pd.read_parquet(manifests / "images").set_index("row")
    assert list(rows.columns) == PROPOSALS.schema.names
    assert sorted(images.loc[rows["row"], "role"]) == ["labeled"] * 2 + ["ood"] * 2
    generator = MaskGenerator(build_sam(), **OPEN)
    for row in rows.to_dict("records"):
        image = images.loc[row["row"]]
        assert (row["image_id"], row["shard"]) == (image["image_id"], image["shard"])
        assert (row["status"], row["height"], row["width"]) == ("ok", 36, 48)
        [expected] = generator(
            [fitted_pixels({"uri": image["uri"], "image_id": image["image_id"]}, 48)]
        )
        assert expected
        assert list(row["rle"]) == [proposal.rle for proposal in expected]
        own = read_proposals(proposals_part(manifests, row["shard"]))[row["row"], row["image_id"]]
        masks = own.masks()
        assert masks.shape == (len(expected), 36, 48)
        assert np.array_equal(masks.sum((1, 2)), row["area"])
        for index, (mask, (left, top, width, height)) in enumerate(
            zip(masks, row["bbox"], strict=True)
        ):
            y, x = np.nonzero(mask)
            box = (x.min(), y.min(), x.max() - x.min(), y.max() - y.min())
            assert box == (left, top, width, height)
            encoded = {"size": [36, 48], "counts": row["rle"][index].encode()}
            assert coco.area(encoded) == mask.sum()
        assert own.predicted_iou == pytest.approx([p.predicted_iou for p in expected])
        assert own.stability_score == pytest.approx([p.stability_score for p in expected])


def test_the_sum_of_it_and_a_second_run(call: Call, manifests: Path) -> None:
    first = call("run")
    masks = sum(len(areas) for areas in pd.read_parquet(manifests / "proposals")["area"]) / 4
    assert f"propose: 4 images, {masks:.1f} masks an image, " in first.stderr
    again = call("run")
    assert "propose: nothing to do, 2 fresh" in again.stderr


def test_only_what_changes_masks_makes_them_stale(
    call: Call, config: Path, checkpoint: Path, tmp_path: Path
) -> None:
    call("run")
    fresh = [
        "propose.points_per_batch=3",
        "propose.images_per_batch=2",
        "propose.device=cpu",
        "cluster.workers=2",
    ]
    assert state(call, *fresh) == "fresh"
    for key in (
        "points_per_side=5",
        "size_px=64",
        "crop_n_layers=1",
        "box_nms_thresh=0.5",
        "mode=fast",
    ):
        assert state(call, f"propose.{key}") == "stale"
    vocabulary = tmp_path / "vocabulary.yaml"
    values = yaml.safe_load(vocabulary.read_text())
    values["classes"][1]["concepts"] = ["circle"]
    vocabulary.write_text(yaml.safe_dump({**values, "templates": ["a {}"]}))
    assert state(call) == "fresh"
    (tmp_path / "moved").mkdir()
    moved = shutil.copy(checkpoint, tmp_path / "moved")
    assert state(call, f"propose.weights={moved}") == "fresh"
    weights = load_file(checkpoint)
    key = "mask_decoder.iou_token.weight"
    save_file({**weights, key: weights[key] + 1}, checkpoint)
    assert state(call) == "stale"


def test_new_roles_bring_new_shards_only(call: Call, manifests: Path) -> None:
    call("run")
    printed = call("run", "propose.roles=[ood, unlabeled]").stderr
    assert "propose: 2 images new: shard 1" in printed
    rows = pd.read_parquet(manifests / "proposals")
    images = pd.read_parquet(manifests / "images").set_index("row")
    assert set(images.loc[rows["row"], "role"]) == {"labeled", "unlabeled", "ood"}


def test_other_weights_are_read_by_the_worker_that_has_the_old_ones(
    call: Call, manifests: Path, checkpoint: Path
) -> None:
    call("run")
    before = pd.read_parquet(manifests / "proposals")
    weights = load_file(checkpoint)
    save_file({name: value.flip(0).contiguous() for name, value in weights.items()}, checkpoint)
    call("run")
    after = pd.read_parquet(manifests / "proposals")
    assert [list(rle) for rle in before["rle"]] != [list(rle) for rle in after["rle"]]


def test_an_image_that_vanishes_meanwhile_is_a_failed_row(
    call: Call, config: Path, manifests: Path, data: Path
) -> None:
    call("run ingest")
    loaded = config_file.load(config, {stage.name: stage.Config for stage in GRAPH})
    stage = ProposeStage(loaded.sections["propose"], Context(loaded, Console()))
    units = stage.plan()
    (data / "ood/images/0.png").unlink()
    (data / "ood/images/1.png").write_bytes(b"no image any more")
    stage.run(units)
    rows = pd.read_parquet(manifests / "proposals").sort_values("row")
    failed = rows[rows["status"] == "failed"]
    assert failed["error_message"].tolist() == [
        "cannot be read: No such file or directory",
        "changed since `maskmill run ingest` read it",
    ]
    assert [len(masks) for masks in failed["rle"]] == [0, 0]
    readable = read_proposals(proposals_part(manifests, 1))
    assert not {row for row, _ in readable} & set(failed["row"])


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "an offset without end": (
        {"model": "sandbox", "stability_score_offset": float("inf")},
        "{config}: propose.stability_score_offset: inf is wrong; write a number above 0",
    ),
    "no file": (
        {"model": "vit_h", "weights": "weights/sam.pth"},
        "propose.weights: {folder}/weights/sam.pth: there is no such file; download "
        "https://dl.fbaipublicfiles.com/segment_anything/sam_vit_h_4b8939.pth and put it there, "
        "or leave out the key and run again",
    ),
    "the sandbox's and a file": (
        {"model": "sandbox", "weights": "sam.pth"},
        "{config}: propose: these keys are wrong; "
        "leave out `weights`: the sandbox's SAM has its own",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_wrong_with_a_section_is_one_line(
    kind: str, tiny: dict[str, Any], write_config: Callable[..., Path], maskmill: Call
) -> None:
    keys, text = WRONG[kind]
    config = write_config({**tiny, "propose": keys})
    done = maskmill("run", "--config", config)
    assert done.returncode == 1
    assert (
        done.stderr.splitlines()[-1] == f"error: {text.format(config=config, folder=config.parent)}"
    )


@pytest.mark.parametrize("content", ["text", "another model"])
def test_weights_that_do_not_fit_are_one_line(call: Call, checkpoint: Path, content: str) -> None:
    if content == "text":
        checkpoint.write_text("no tensors")
    else:
        weights = load_file(checkpoint)
        save_file({name: weights[name] for name in list(weights)[1:]}, checkpoint)
    done = call("run")
    assert done.returncode == 1
    line = done.stderr.splitlines()[-1]
    assert line.startswith(f"error: propose.weights: {checkpoint}: no weights of vit_b: ")
    assert line.endswith(
        "; use segment_anything's checkpoint of vit_b, or set `model` to what the file is of"
    )
