"""Parts and labels that are whole, but damaged elsewhere, lost, copied or in the wrong place."""

import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pandas as pd
import pytest

from pipeline.console import Console
from pipeline.engine.run_shards import ShardResult
from pipeline.engine.stage import Context
from pipeline.errors import StorageError
from pipeline.records.redone import Redone
from stages.pseudolabel.stage import PseudolabelStage
from tests.finished_run import (
    artifacts,
    call,
    data,
    load,
    manifests,
    not_fresh,
    outcome,
    run_folder,
    stamps,
    values,
    write,
    written,
)

__all__ = ["artifacts", "call", "data", "manifests", "outcome", "run_folder", "values", "write"]

Command = Callable[..., CompletedProcess[str]]


def places(manifests: Path) -> dict[str, int]:
    """The row of each image by its address."""
    rows = pd.read_parquet(manifests / "images")
    return dict(zip(rows.uri, rows.row, strict=True))


def damaged_in(part: Path, text: bytes) -> None:
    """Changes a byte of a column, where a text lies in it."""
    content = bytearray(part.read_bytes())
    content[content.index(text)] ^= 1
    part.write_bytes(content)


def cut(part: Path) -> None:
    part.write_bytes(part.read_bytes()[:40])


def without_footer(part: Path) -> None:
    part.write_bytes(part.read_bytes()[:-1] + b"0")


def lost(part: Path) -> None:
    part.unlink()


@pytest.mark.parametrize("harm", [cut, without_footer, lost])
def test_no_label_is_made_again_for_an_images_part(
    harm: Callable[[Path], None], call: Command, outcome: Command, manifests: Path, artifacts: Path
) -> None:
    before, labels = places(manifests), stamps(artifacts / "pseudo_labels")
    parts = stamps(manifests / "pseudo_labels")
    harm(manifests / "images/part-00001.parquet")
    call("verify --rerun" if harm is not lost else "run")
    labeled = pd.read_parquet(manifests / "pseudo_labels")
    rows = pd.read_parquet(manifests / "images").set_index("row")
    assert (rows.image_id[labeled.row].to_numpy() == labeled.image_id.to_numpy()).all()
    assert not written(labels, artifacts / "pseudo_labels")
    assert not written(parts, manifests / "pseudo_labels")
    assert places(manifests) == before
    assert not_fresh() == {}


def test_images_of_no_label_keep_their_rows_too(
    call: Command, outcome: Command, manifests: Path
) -> None:
    """As long as the columns of the part that say where they are can be read."""
    before = places(manifests)
    part = manifests / "images/part-00001.parquet"
    damaged_in(part, part.name.encode())  # in the record, whose checksum shows it
    assert outcome("verify").returncode == 1
    call("verify --rerun")
    assert places(manifests) == before
    assert not_fresh() == {}


@pytest.mark.parametrize("table", ["images", "pseudo_labels/labeler=clip"])
def test_a_copied_part_is_named_and_removed(
    table: str, call: Command, outcome: Command, manifests: Path, artifacts: Path
) -> None:
    labels, first = stamps(artifacts / "pseudo_labels"), min((manifests / table).iterdir())
    extra = first.with_name("part-00099.parquet")
    shutil.copy(first, extra)
    message = f"{extra.relative_to(Path.cwd())}: holds the rows of {first.name}"
    found = outcome("verify")
    assert found.returncode == 1
    assert message in found.stdout or f"{extra.relative_to(Path.cwd())}: no part" in found.stdout
    assert "stale" in outcome("status").stdout or message in outcome("status").stderr
    call("verify --rerun")
    assert not extra.exists()
    assert not_fresh() == {}
    assert not written(labels, artifacts / "pseudo_labels")


def test_a_part_of_another_table_is_named_and_removed(
    call: Command, outcome: Command, manifests: Path
) -> None:
    extra = manifests / "images/part-00002.parquet"
    shutil.copy(manifests / "pseudo_labels/labeler=clip/part-00000.parquet", extra)
    text = "holds the rows of pseudo_labels/labeler=clip/part-00000.parquet"
    assert text in outcome("verify").stdout
    call("verify --rerun")
    assert not extra.exists()
    assert not_fresh() == {}


@pytest.mark.parametrize("table", ["images", "pseudo_labels/labeler=clip"])
def test_exchanged_parts_are_named_and_put_right(
    table: str, call: Command, outcome: Command, manifests: Path, artifacts: Path
) -> None:
    before, labels = places(manifests), stamps(artifacts / "pseudo_labels")
    one, other = sorted((manifests / table).iterdir())[:2]
    contents = one.read_bytes(), other.read_bytes()
    one.write_bytes(contents[1])
    other.write_bytes(contents[0])
    found = outcome("verify")
    assert found.returncode == 1
    assert f"{one.relative_to(Path.cwd())}: holds the rows of {other.name}\n" in found.stdout
    shown = outcome("status")
    assert f"holds the rows of {other.name}" in shown.stdout + shown.stderr
    call("verify --rerun")
    assert (one.read_bytes(), other.read_bytes()) == contents
    assert places(manifests) == before
    assert not written(labels, artifacts / "pseudo_labels")
    assert not_fresh() == {}


def test_what_read_exchanged_labels_is_made_again(
    call: Command, outcome: Command, manifests: Path, artifacts: Path
) -> None:
    """Their own checksums are right, so no reader notices."""
    (store,) = (artifacts / "pseudo_labels/clip.zarr").glob("*/mask/c")
    one, other = (folder / "0/0" for folder in sorted(store.iterdir())[:2])
    contents = one.read_bytes(), other.read_bytes()
    assert contents[0] != contents[1]
    one.write_bytes(contents[1])
    other.write_bytes(contents[0])
    call("verify --rerun")
    assert one.read_bytes() == contents[0]
    stale = not_fresh()
    assert stale["train"] == ["web seed 0"]
    call("run")
    assert not_fresh() == {}


def test_unreadable_labels_cannot_have_misled_a_training(call: Command, artifacts: Path) -> None:
    (file,) = (artifacts / "pseudo_labels/clip.zarr").glob("*/mask/c/1/0/0")
    file.write_bytes(file.read_bytes()[:-30])
    call("verify --rerun")
    assert not_fresh() == {}


@pytest.mark.parametrize("lie", ["rows", "file", "no file"])
def test_what_a_worker_says_must_be_what_lies_there(lie: str, manifests: Path) -> None:
    config = load()
    section = config.sections["pseudolabel"]
    stage = PseudolabelStage(section, Context(config, Console()))
    unit = next(unit for unit in stage.plan() if unit.shard is not None)
    rows: Any = pd.read_parquet(unit.part).to_dict("records")
    from pipeline.files.checksum import checksum_of_bytes

    files = {path: checksum_of_bytes(path) for path in unit.outputs}
    first, *_ = files
    if lie == "rows":
        rows[0]["row"] += 1
    elif lie == "file":
        files[first] = files[first][::-1]
    else:
        first.unlink()
    before = unit.part.read_bytes()
    with pytest.raises(StorageError, match="the worker"):
        stage._commit_result(unit, ShardResult(rows, files))
    assert unit.part.read_bytes() == before
    assert Redone(manifests).is_empty
