import json
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import zarr
from PIL import Image
from safetensors.torch import load_file, save_file

from pipeline.config import config as config_file
from pipeline.console import Console
from pipeline.engine.stage import Context
from pipeline.records import manifest
from pipeline.records.label_reader import LabelReader, StoredLabel
from pipeline.records.tables import IMAGES, PSEUDO_LABELS
from stages.graph import GRAPH
from stages.pseudolabel.output import read_labels
from stages.pseudolabel.stage import PseudolabelStage

Call = Callable[..., CompletedProcess[str]]
Bytes = npt.NDArray[np.uint8]

SIZE_PX = 48


@pytest.fixture
def config(
    tiny: dict[str, Any],
    clip_folder: Callable[[str], Path],
    write_config: Callable[..., Path],
) -> Path:
    """Labels web images of 32 x 24 pixels and the labeled ones, a shard each."""
    model = f"local-dir:{clip_folder('vit')}"
    clip = {"name": "dense_clip", "model": model, "window_px": 32, "stride_px": 16}
    return write_config({**tiny, "pseudolabel": {"size_px": SIZE_PX, "labelers": {"clip": clip}}})


@pytest.fixture
def call(call: Call, config: Path) -> Call:
    """The command line with the config: ``call("run", "run=other")``."""
    return lambda verb, *overrides: call(verb, config, *overrides, code=0)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    return tmp_path / "workspace"


def table(workspace: Path) -> pd.DataFrame:
    """The manifest as a user reads it."""
    return pd.read_parquet(workspace / "manifests/tiny/pseudo_labels")


def parts(workspace: Path) -> dict[str, int]:
    """Modification times of the manifest's parts."""
    folder = workspace / "manifests/tiny/pseudo_labels/labeler=clip"
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def arrays(workspace: Path, group: str) -> tuple[Bytes, Bytes]:
    """Masks and confidences of all rows of a group."""
    opened = zarr.open_group(workspace / group, mode="r")
    return np.asarray(opened["mask"]), np.asarray(opened["confidence"])


def test_every_row_has_its_label_in_the_store(call: Call, workspace: Path) -> None:
    call("run")
    rows = table(workspace)
    images = pd.read_parquet(workspace / "manifests/tiny/images").set_index("row")
    assert list(rows.columns) == [*PSEUDO_LABELS.schema.names, "labeler"]
    assert sorted(images.loc[rows["row"], "role"]) == ["labeled"] * 2 + ["ood"] * 2
    (group,) = set(rows["store"])
    masks, confidences = arrays(workspace, group)
    for row in rows.to_dict("records"):
        assert row["image_id"] == images.loc[row["row"], "image_id"]
        assert (row["status"], row["height"], row["width"]) == ("ok", 36, 48)
        mask, confidence = masks[row["row"]], confidences[row["row"]]
        assert (mask[36:] == 255).all()
        assert (confidence[9:] == 0).all()
        image = mask[:36]
        assert row["coverage"] == pytest.approx((image != 255).mean())
        ids, counts = np.unique(image[image != 255], return_counts=True)
        assert row["class_ids"].tolist() == ids.tolist()
        assert row["class_fractions"] == pytest.approx(counts / image.size)
        assert 0 < row["mean_confidence"] <= 1
        covered = confidence[:9].mean() / 255
        assert covered == pytest.approx(row["mean_confidence"] * row["coverage"], abs=0.005)
    unwritten = sorted(set(range(len(masks))) - set(rows["row"]))
    assert unwritten
    assert (masks[unwritten] == 255).all()
    assert (confidences[unwritten] == 0).all()


def test_a_second_run_does_nothing(call: Call, workspace: Path) -> None:
    first = call("run")
    before = parts(workspace)
    again = call("run")
    assert "pseudolabel: nothing to do, 3 fresh" in again.stderr
    assert parts(workspace) == before
    assert again.stdout == first.stdout
    assert "clip" in again.stdout


def test_other_keys_label_into_a_group_next_to_the_old_one(call: Call, workspace: Path) -> None:
    call("run")
    old = table(workspace)
    (old_group,) = set(old["store"])
    before = arrays(workspace, old_group)
    printed = call("run", "pseudolabel.labelers.clip.threshold=0.5").stderr
    assert "pseudolabel.labelers.clip.threshold 0.0 -> 0.5: shards 0, 1" in printed
    new = table(workspace)
    (new_group,) = set(new["store"])
    assert Path(new_group).parent == Path(old_group).parent
    assert new_group != old_group
    assert not set(new["fingerprint"]) & set(old["fingerprint"])
    assert all(map(np.array_equal, before, arrays(workspace, old_group)))
    rows = old["row"].tolist()
    places = [StoredLabel(workspace / old_group, row, (36, 48)) for row in rows]
    for row, (mask, _) in zip(rows, LabelReader().read(places), strict=True):
        assert np.array_equal(mask, before[0][row, :36])


def test_keys_that_change_no_label_make_nothing_stale(call: Call) -> None:
    call("run")
    keys = ["batch_size=3", "device=cpu", "labelers.clip.batch_size=5"]
    overrides = [*(f"pseudolabel.{key}" for key in keys), "cluster.workers=2"]
    stages = json.loads(call("status --json", *overrides).stdout)["stages"]
    assert {stage["name"]: stage["state"] for stage in stages}["pseudolabel"] == "fresh"


@pytest.mark.parametrize("lost", ["part", "mask", "confidence"])
def test_a_lost_shard_alone_is_labeled_again(call: Call, workspace: Path, lost: str) -> None:
    call("run")
    (group,) = set(table(workspace)["store"])
    before, labels = parts(workspace), arrays(workspace, group)
    folder = workspace / "manifests/tiny/pseudo_labels/labeler=clip"
    path = folder / "part-00001.parquet" if lost == "part" else workspace / group / lost / "c/1/0/0"
    path.unlink()
    printed = call("run").stderr
    assert ("not done yet" if lost == "part" else "is gone") in printed
    after = parts(workspace)
    assert before["part-00000.parquet"] == after["part-00000.parquet"]
    assert before["part-00001.parquet"] != after["part-00001.parquet"]
    assert all(map(np.array_equal, labels, arrays(workspace, group)))


def test_a_shard_half_replaced_is_not_taken_for_what_it_was(
    call: Call, maskmill: Call, config: Path, workspace: Path, data: Path
) -> None:
    call("run")
    (group,) = set(table(workspace)["store"])
    labels = arrays(workspace, group)
    image, shard = data / "ood/images/0.png", workspace / group / "confidence/c/1/0/0"
    drawn, confidences = image.read_bytes(), shard.read_bytes()
    Image.new("RGB", (32, 24)).save(image)
    shard.unlink()
    shard.mkdir()  # where a file must go: masks are written, confidences are not
    assert maskmill("run", "--config", config).returncode == 1
    shard.rmdir()
    shard.write_bytes(confidences)
    image.write_bytes(drawn)
    call("run")
    assert all(map(np.array_equal, labels, arrays(workspace, group)))


def test_a_worker_that_has_other_weights_reads_the_new_ones(
    call: Call, workspace: Path, clip_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(clip_folder("vit"), tmp_path / "clip")
    model = f"pseudolabel.labelers.clip.model=local-dir:{folder}"
    call("run", model)
    (group,) = set(table(workspace)["store"])
    before = arrays(workspace, group)
    path = folder / "open_clip_model.safetensors"
    weights = load_file(path)
    save_file({**weights, "visual.proj": weights["visual.proj"].flip(0).contiguous()}, path)
    call("run", model)
    (group,) = set(table(workspace)["store"])
    assert not np.array_equal(before[1], arrays(workspace, group)[1])


def test_batches_and_workers_change_no_label(call: Call, workspace: Path, config: Path) -> None:
    """Two worker processes, one image a batch, against one thread and all at once."""
    call("run")
    (group,) = set(table(workspace)["store"])
    alone = arrays(workspace, group)
    call("run", "run=other", "cluster.workers=2", "pseudolabel.batch_size=1")
    masks, confidences = arrays(workspace, group.replace("/tiny/", "/other/"))
    assert masks.tobytes() == alone[0].tobytes()
    assert np.abs(confidences.astype(int) - alone[1]).max() <= 1


def test_an_image_that_vanishes_meanwhile_is_a_failed_row(
    call: Call, config: Path, workspace: Path, data: Path
) -> None:
    call("run ingest")
    loaded = config_file.load(config, {stage.name: stage.Config for stage in GRAPH})
    stage = PseudolabelStage(loaded.sections["pseudolabel"], Context(loaded, Console()))
    units = stage.plan()
    (data / "ood/images/0.png").unlink()
    (data / "ood/images/1.png").write_bytes(b"no image any more")
    stage.run(units)
    rows = table(workspace).sort_values("row")
    failed = rows[rows["status"] == "failed"]
    assert failed["error_message"].tolist() == [
        "cannot be read: No such file or directory",
        "changed since `maskmill run ingest` read it",
    ]
    assert (failed["coverage"] == 0).all()
    masks, confidences = arrays(workspace, failed["store"].iloc[0])
    assert (masks[failed["row"]] == 255).all()
    assert (confidences[failed["row"]] == 0).all()
    manifests = workspace / "manifests/tiny"
    images = manifest.read(manifests / "images", IMAGES)
    good = read_labels(manifests, "clip", images)["row"].to_pylist()
    assert good == rows[rows["status"] == "ok"]["row"].tolist()


@pytest.mark.parametrize("device", ["abacus", "meta"])
def test_what_a_worker_cannot_do_is_one_line(maskmill: Call, config: Path, device: str) -> None:
    result = maskmill("run", "--config", config, "--set", f"pseudolabel.device={device}")
    assert result.returncode == 1
    fix = "use auto, cpu, or on a machine with such a GPU cuda or mps"
    assert (
        result.stderr.splitlines()[-1]
        == f"error: {config}: pseudolabel (with --set pseudolabel.device={device}): "
        f"device: this machine has no device {device!r}; {fix}"
    )
    assert "Traceback" not in result.stderr
