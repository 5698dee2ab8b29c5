"""What `run` is asked for: previews, single stages and shards, force; then damage and garbage."""

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from pipeline.files.run_lock import locked
from pipeline.records import manifest, tables
from stages.graph import GRAPH

Call = Callable[..., CompletedProcess[str]]


@pytest.fixture
def config(tiny: dict[str, Any], write_config: Callable[..., Path]) -> Path:
    """Label files as labels: three shards of images, of which two are labeled."""
    roles = ["labeled", "val", "test"]
    labelers = {"truth": "files"}
    values = {**tiny, "pseudolabel": {"size_px": 32, "roles": roles, "labelers": labelers}}
    return write_config({**values, "ingest": {**tiny["ingest"], "shard_size": 2}})


@pytest.fixture
def call(call: Call, config: Path) -> Call:
    """The command line with the config: ``call("run --force", "run=other")``."""
    return lambda line, *overrides, code=0: call(line, config, *overrides, code=code)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    return tmp_path / "workspace"


def parts(workspace: Path) -> dict[str, int]:
    """Modification times of the labels' parts."""
    folder = workspace / "manifests/tiny/pseudo_labels/labeler=truth"
    return {path.stem: path.stat().st_mtime_ns for path in sorted(folder.glob("*.parquet"))}


def shard_files(workspace: Path) -> list[Path]:
    return sorted((workspace / "artifacts").rglob("mask/c/*/0/0"))


def test_a_dry_run_lists_the_work_and_writes_nothing(call: Call, workspace: Path) -> None:
    done = call("run --dry-run")
    assert "ingest: would do shard 0, shard 1, shard 2, shard 3\n" in done.stdout
    assert "pseudolabel: ingest is not fresh\n" in done.stdout
    assert not workspace.exists()
    call("run")
    before = parts(workspace)
    assert call("run --dry-run").stdout == (
        "ingest: nothing to do, 4 fresh\npseudolabel: nothing to do, 3 fresh\n"
    )
    printed = json.loads(call("run --dry-run --json --force pseudolabel --shards 1").stdout)
    ingest, labels = printed["stages"]
    assert (ingest["state"], ingest["to_do"]) == ("fresh", [])
    assert labels["to_do"] == ["truth shard 1"]
    assert labels["causes"][0]["reason"] == "forced"
    assert parts(workspace) == before


def test_shards_are_picked(call: Call, workspace: Path) -> None:
    printed = call("run --shards 1").stderr
    assert "pseudolabel: does 1 of 3 units" in printed
    assert list(parts(workspace)) == ["part-00001"]
    call("run --shards 0,1")
    assert list(parts(workspace)) == ["part-00000", "part-00001"]


def test_force_does_again_what_is_fresh_and_nothing_more(call: Call, workspace: Path) -> None:
    call("run")
    before, images = parts(workspace), workspace / "manifests/tiny/images/part-00000.parquet"
    ingested = images.stat().st_mtime_ns
    printed = call("run pseudolabel --force --shards 1").stderr
    assert "pseudolabel: forced: shards 0, 1" in printed
    after = parts(workspace)
    assert after["part-00000"] == before["part-00000"]
    assert after["part-00001"] > before["part-00001"]
    assert images.stat().st_mtime_ns == ingested


def test_one_stage_alone_leaves_the_others_as_they_are(
    call: Call, workspace: Path, data: Path
) -> None:
    call("run ingest")
    (data / "labeled/images/1.png").write_bytes((data / "labeled/images/0.png").read_bytes())
    printed = call("run --only pseudolabel").stderr
    assert "warning: ingest is not fresh; pseudolabel uses its present output" in printed
    assert len(parts(workspace)) == 2
    printed = call("run").stderr
    assert "ingest: 1 image changed: shard " in printed


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (
            "run ingest --shards 1",
            "--shards: ingest has no shards to choose from; "
            f"name one of: {', '.join(stage.name for stage in GRAPH if stage.picks_shards)}",
        ),
        (
            "run pseudolabel --shards 9",
            "--shards: pseudolabel has no shard 9; use numbers of 0 to 1",
        ),
    ],
)
def test_shards_that_cannot_be_picked(call: Call, line: str, text: str) -> None:
    done = call(line, code=1)
    assert done.stderr.splitlines()[-1] == f"error: {text}"


@pytest.mark.parametrize("line", ["run ingest --only ingest", "run --json", "run --shards 1,b"])
def test_requests_that_contradict_themselves_are_misuse(call: Call, line: str) -> None:
    call(line, code=2)


def test_verify_finds_other_bytes_and_has_them_made_again(call: Call, workspace: Path) -> None:
    call("run")
    assert call("verify").stdout == "7 units checked, no damage\n"
    first, second = shard_files(workspace)
    good = second.read_bytes()
    second.write_bytes(first.read_bytes())  # whole, but of another shard
    done = call("verify", code=1)
    assert done.stdout == (
        f"pseudolabel: truth shard 1: {second}: "
        "not the bytes that were written, its checksum differs\n"
        "7 units checked, 1 damaged; repair it with: maskmill verify --rerun\n"
    )
    before = parts(workspace)
    call("verify --rerun")
    assert second.read_bytes() == good
    assert parts(workspace)["part-00000"] == before["part-00000"]
    assert call("verify").stdout == "7 units checked, no damage\n"


def test_verify_finds_a_damaged_part(call: Call, workspace: Path) -> None:
    call("run")
    part = workspace / "manifests/tiny/pseudo_labels/labeler=truth/part-00001.parquet"
    content = bytearray(part.read_bytes())
    content[10] ^= 255
    part.write_bytes(content)
    assert f"{part}: damaged manifest part" in call("verify", code=1).stdout
    call("verify --rerun")
    assert "no damage" in call("verify").stdout


def test_verify_repairs_a_damaged_part_that_others_are_planned_from(
    call: Call, workspace: Path
) -> None:
    call("run")
    folder = workspace / "manifests/tiny"
    before = manifest.read(folder / "images", tables.IMAGES, ["image_id", "status"])
    for part in (folder / "images/part-00000.parquet", folder / "images/part-00001.parquet"):
        part.write_bytes(part.read_bytes()[:-7])
    done = call("verify", code=1)
    assert done.stdout == (
        f"ingest: {folder}/images/part-00000.parquet: damaged manifest part\n"
        f"ingest: {folder}/images/part-00001.parquet: damaged manifest part\n"
        "2 damaged parts that other units depend on; "
        "repair it with: maskmill verify --rerun\n"
    )
    assert call("verify --rerun").stdout.endswith("7 units checked, no damage\n")
    after = manifest.read(folder / "images", tables.IMAGES, ["image_id", "status"])
    assert after.sort_by("image_id").equals(before.sort_by("image_id"))
    call("run")
    assert call("verify").stdout == "7 units checked, no damage\n"


def test_before_anything_ran_there_is_neither_damage_nor_garbage(call: Call) -> None:
    done = call("verify")
    assert done.stdout == "0 units checked, no damage\n"
    assert "not checked: " in done.stderr
    assert call("gc").stdout == "nothing to delete\n"


def test_garbage_is_what_nothing_points_to(call: Call, workspace: Path) -> None:
    call("run")
    kept = shard_files(workspace)
    assert call("gc").stdout == "nothing to delete\n"
    call("run", "pseudolabel.size_px=48")
    labels = shard_files(workspace)
    new = set(labels) - set(kept)
    (orphan,) = {path.parents[4] for path in kept}
    left = next(iter(new)).parent / ".0.123.tmp"
    left.write_bytes(bytes(1000))
    former = [path for path in (workspace / "manifests/tiny/.kept").rglob("*") if path.is_file()]
    assert len(former) == 3  # two shards and the report card
    garbage = [path for path in orphan.rglob("*") if path.is_file()] + former
    size = 1000 + sum(path.stat().st_size for path in garbage)
    printed = call("gc --dry-run", "pseudolabel.size_px=48").stdout
    assert f"pseudolabel: would delete {orphan}, " in printed
    assert f"pseudolabel: would delete {left}, 1.0 kB\n" in printed
    assert printed.endswith(f"would free {size / 1000:.1f} kB\n")
    assert set(shard_files(workspace)) == set(labels)
    assert call("gc", "pseudolabel.size_px=48").stdout.endswith(f"freed {size / 1000:.1f} kB\n")
    assert set(shard_files(workspace)) == new
    assert not orphan.exists()
    assert not any(path.exists() for path in former)
    assert "nothing to do" in call("run", "pseudolabel.size_px=48").stderr


def test_a_labeler_that_the_config_drops_is_garbage(call: Call, workspace: Path) -> None:
    call("run", "pseudolabel.labelers={truth: files, other: files}")
    folder = workspace / "manifests/tiny/pseudo_labels/labeler=other"
    assert folder.exists()
    call("gc")
    assert not folder.exists()
    assert not (workspace / "artifacts/tiny/pseudo_labels/other.zarr").exists()
    assert "pseudolabel: nothing to do, 3 fresh" in call("run").stderr


def test_nothing_is_deleted_under_a_run(call: Call, workspace: Path) -> None:
    call("run")
    with locked(workspace / "manifests/tiny"):
        assert "another command is working on this run" in call("gc", code=1).stderr
        call("gc --dry-run")


def test_labels_of_images_that_are_all_gone_are_dropped(
    call: Call, workspace: Path, data: Path
) -> None:
    call("run")
    for role in ("test", "val"):
        (data / role / "images/0.png").write_bytes(b"no image")
    printed = call("run").stderr
    assert f"pseudolabel: drops {workspace}/manifests/tiny/pseudo_labels/labeler=truth/" in printed
    assert len(parts(workspace)) == 1
    assert "pseudolabel: nothing to do, 2 fresh" in call("run").stderr


@pytest.mark.parametrize("document", ["zarr.json", "0/zarr.json", "0/mask/zarr.json"])
def test_verify_restores_what_describes_the_labels_and_labels_nothing(
    call: Call, workspace: Path, document: str
) -> None:
    call("run")
    store = shard_files(workspace)[0].parents[4]
    path = store.parent / document.replace("0/", f"{store.name}/")
    path.unlink()
    before = parts(workspace)
    done = call("verify", code=1)
    assert f"pseudolabel: {path}: missing or damaged; it describes labels\n" in done.stdout
    call("verify --rerun")
    assert path.exists()
    assert parts(workspace) == before
    assert "no damage" in call("verify").stdout
