import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

Ingest = Callable[..., CompletedProcess[str]]
Rows = Callable[[], pd.DataFrame]


@pytest.fixture
def parts(manifest_folder: Path) -> Callable[[], dict[str, int]]:
    """Modification times of the parts, by file name."""

    def times() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in manifest_folder.glob("*.parquet")}

    return times


Parts = Callable[[], dict[str, int]]


def changed(before: dict[str, int], after: dict[str, int]) -> set[int]:
    """Shards whose part is new or was written again."""
    return {int(name[5:10]) for name, time in after.items() if before.get(name) != time}


def draw(path: Path, color: str = "green") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (32, 24), color).save(path)


def test_every_image_gets_a_row_a_shard_and_what_is_known_of_it(ingest: Ingest, rows: Rows) -> None:
    done = ingest()
    assert done.returncode == 0, done.stderr
    table = rows()
    assert table.row.tolist() == list(range(8))
    assert table.shard.tolist() == [0] * 4 + [1] * 4
    assert table.role.tolist() == [
        "test",
        "val",
        *["labeled"] * 2,
        *["unlabeled"] * 2,
        "ood",
        "ood",
    ]
    assert set(table.status) == {"ok"}
    assert (table.width.unique().tolist(), table.height.unique().tolist()) == ([32], [24])
    assert table.image_id.is_unique
    assert table.mask_uri.notna().tolist() == [True] * 4 + [False] * 4
    assert [list(ids) for ids in table.mask_class_ids[:4]] == [[0, 1, 2]] * 4
    assert "ingest: 2 labeled, 2 ood, 1 test, 2 unlabeled, 1 val; in " in done.stderr
    assert "warning" not in done.stderr


def test_a_rerun_does_nothing(ingest: Ingest, parts: Parts) -> None:
    ingest()
    before = parts()
    done = ingest()
    assert "ingest: nothing to do, 2 fresh\n" in done.stderr
    assert parts() == before


def test_new_images_go_to_new_shards(ingest: Ingest, rows: Rows, parts: Parts, data: Path) -> None:
    ingest()
    before = parts()
    draw(data / "ood/images/00.png")  # would come first in its folder
    done = ingest()
    assert "ingest: not done yet: shard 2\n" in done.stderr
    assert changed(before, parts()) == {2}
    assert list(rows().loc["ood/images/00.png", ["row", "shard"]]) == [8, 2]


def test_a_vanished_image_keeps_its_row_and_may_come_back(
    ingest: Ingest, rows: Rows, parts: Parts, data: Path
) -> None:
    ingest()
    first, before = rows(), parts()
    path = data / "unlabeled/images/0.png"
    path.rename(data / "elsewhere.png")
    done = ingest()
    assert "ingest: images changed: shard 1\n" in done.stderr
    assert f"warning: 1 images gone; first: {path}: no longer in the source\n" in done.stderr
    assert changed(before, parts()) == {1}
    gone = rows().loc["unlabeled/images/0.png", ["status", "row", "width"]]
    assert list(gone) == ["gone", 4, 32]
    (data / "elsewhere.png").rename(path)
    ingest()
    pd.testing.assert_frame_equal(rows(), first)


def test_a_renamed_image_is_a_new_one_and_its_old_row_is_gone(
    ingest: Ingest, rows: Rows, data: Path
) -> None:
    ingest()
    (data / "ood/images/0.png").rename(data / "ood/images/renamed.png")
    ingest()
    table = rows()
    assert table.status["ood/images/0.png"] == "gone"
    assert table.status["ood/images/renamed.png"] == "ok"
    assert table.row["ood/images/renamed.png"] == 8


def test_images_that_swap_names_both_stay(ingest: Ingest, rows: Rows, data: Path) -> None:
    ingest()
    before = rows().image_id
    one, other = data / "ood/images/0.png", data / "unlabeled/images/0.png"
    one.rename(data / "spare")
    other.rename(one)
    (data / "spare").rename(other)
    ingest()
    table = rows()
    assert set(table.status) == {"ok"}
    assert table.image_id["ood/images/0.png"] == before["unlabeled/images/0.png"]
    assert table.image_id["unlabeled/images/0.png"] == before["ood/images/0.png"]


def test_a_changed_image_makes_only_its_shard_stale(
    ingest: Ingest, rows: Rows, parts: Parts, data: Path
) -> None:
    ingest()
    first, before = rows(), parts()
    draw(data / "ood/images/1.png")
    done = ingest()
    assert "ingest: images changed: shard 1\n" in done.stderr
    assert changed(before, parts()) == {1}
    assert rows().image_id["ood/images/1.png"] != first.image_id["ood/images/1.png"]


def test_bad_images_are_rows_and_told_at_the_end(ingest: Ingest, rows: Rows, data: Path) -> None:
    (data / "ood/images/0.png").write_bytes(b"")
    (data / "labeled/images/1.png").write_text("<html>")
    done = ingest()
    assert done.returncode == 0
    assert done.stderr.endswith(
        f"warning: 2 images rejected; first: {data}/labeled/images/1.png: "
        "not an image of a known format\n"
    )
    table = rows()
    assert table.status["ood/images/0.png"] == "rejected"
    assert table.error_message["ood/images/0.png"] == "the file is empty"
    assert table.error_message["labeled/images/1.png"] == "not an image of a known format"


def test_classes_that_nobody_labeled_are_told(ingest: Ingest, data: Path) -> None:
    for number in range(2):
        mask = data / f"labeled/masks/{number}.png"
        Image.fromarray(np.asarray(Image.open(mask)) % 2).save(mask)
    assert ingest().stderr.endswith("warning: no labeled pixel of: box\n")


def test_of_equal_images_the_evaluation_keeps_its_own(
    ingest: Ingest, rows: Rows, data: Path
) -> None:
    shutil.copy(data / "test/images/0.png", data / "unlabeled/images/copy.png")
    shutil.copy(data / "test/images/0.png", data / "ood/images/copy.png")
    shutil.copy(data / "unlabeled/images/0.png", data / "ood/images/copy2.png")
    done = ingest()
    assert "warning: 3 images duplicate; first: " in done.stderr
    table = rows()
    assert set(table[table.status == "duplicate"].index) == {
        "unlabeled/images/copy.png",
        "ood/images/copy.png",
        "ood/images/copy2.png",
    }
    message = f"same content as {data}/test/images/0.png of source test"
    assert table.error_message["ood/images/copy.png"] == message
    assert table.status["test/images/0.png"] == "ok"


def test_an_evaluation_image_added_later_is_taken_out_of_training(
    ingest: Ingest, rows: Rows, parts: Parts, data: Path
) -> None:
    ingest()
    before = parts()
    shutil.copy(data / "ood/images/1.png", data / "val/images/1.png")
    shutil.copy(data / "val/masks/0.png", data / "val/masks/1.png")
    ingest()
    assert changed(before, parts()) == {1, 2}
    table = rows()
    assert table.status["val/images/1.png"] == "ok"
    assert table.status["ood/images/1.png"] == "duplicate"
    assert "ingest: nothing to do, 3 fresh\n" in ingest().stderr


def test_a_duplicate_counts_once_its_twin_is_gone(ingest: Ingest, rows: Rows, data: Path) -> None:
    shutil.copy(data / "unlabeled/images/0.png", data / "ood/images/9.png")
    ingest()
    assert rows().status["ood/images/9.png"] == "duplicate"
    (data / "unlabeled/images/0.png").unlink()
    ingest()
    table = rows()
    assert table.status["ood/images/9.png"] == "ok"
    assert table.error_message.isna()["ood/images/9.png"]


def test_a_file_of_two_sources_counts_once(
    ingest: Ingest, rows: Rows, tiny: dict[str, Any]
) -> None:
    tiny["ingest"]["sources"]["unlabeled"]["source"]["images"] = "labeled/images"
    ingest()
    table = rows()
    assert set(table[table.role == "labeled"].status) == {"ok"}
    assert set(table[table.role == "unlabeled"].status) == {"duplicate"}


def test_a_run_killed_before_its_last_part_is_finished_by_the_next(
    ingest: Ingest, rows: Rows, manifest_folder: Path, data: Path
) -> None:
    shutil.copy(data / "unlabeled/images/0.png", data / "ood/images/9.png")
    ingest()
    whole = rows()
    (manifest_folder / "part-00002.parquet").unlink()
    ingest()
    pd.testing.assert_frame_equal(rows(), whole)


def test_a_comment_changes_nothing_and_a_role_its_shards(
    ingest: Ingest,
    maskmill: Ingest,
    rows: Rows,
    parts: Parts,
    tiny: dict[str, Any],
    write_config: Callable[..., Path],
) -> None:
    ingest()
    before = parts()
    path = write_config(tiny)
    path.write_text(f"# a comment\n\n{path.read_text()}")
    assert "nothing to do" in maskmill("run", "ingest", "--config", path).stderr
    tiny["ingest"]["sources"]["ood"]["role"] = "unlabeled"
    done = ingest()
    assert "ingest: ingest.sources.ood.role ood -> unlabeled: shard 1\n" in done.stderr
    assert changed(before, parts()) == {1}
    assert set(rows().role) == {"test", "val", "labeled", "unlabeled"}


def test_a_class_s_name_makes_nothing_stale_and_a_scheme_only_what_it_reads(
    ingest: Ingest, rows: Rows, tiny: dict[str, Any]
) -> None:
    names = ("nothing", "round", "square")
    renamed = [{"name": name, "color": "#123456"} for name in names]
    scheme = {0: "nothing", 1: "round", 2: "square"}
    ingest(background=None)
    assert "ingest: nothing to do, 2 fresh\n" in ingest(classes=renamed, background=None).stderr
    for role in ("test", "val", "labeled"):
        tiny["ingest"]["sources"][role]["label_scheme"] = "shapes"
    vocabulary = {"classes": renamed, "background": None}
    ingest(**vocabulary, label_schemes={"shapes": scheme})
    done = ingest(**vocabulary, label_schemes={"shapes": {**scheme, 2: "ignore"}})
    assert "ingest: vocabulary.label_schemes.shapes.2 2 -> 255: shard 0\n" in done.stderr
    assert list(rows().mask_class_ids.iloc[0]) == [0, 1]


def test_a_source_that_is_taken_out_leaves_rows_that_are_gone(
    ingest: Ingest, rows: Rows, tiny: dict[str, Any]
) -> None:
    ingest()
    del tiny["ingest"]["sources"]["ood"]
    ingest()
    table = rows()
    assert set(table[table.role == "ood"].status) == {"gone"}
    assert set(table[table.role != "ood"].status) == {"ok"}
    assert "nothing to do" in ingest().stderr


def test_a_wrong_label_file_stops_and_is_taken_up_when_mended(
    ingest: Ingest, parts: Parts, data: Path
) -> None:
    good = (data / "labeled/masks/0.png").read_bytes()
    for number in range(2):
        Image.fromarray(np.full((24, 32), 9, np.uint8)).save(data / f"labeled/masks/{number}.png")
    done = ingest()
    assert done.returncode == 1
    assert done.stderr.endswith(
        f"error: {data}/labeled/masks/0.png: "
        "class id 9 is not in the vocabulary (and 1 more in this shard); "
        "use 0 to 2 or 255, or name a label_scheme\n"
    )
    assert parts() == {}
    for number in range(2):
        (data / f"labeled/masks/{number}.png").write_bytes(good)
    assert ingest().returncode == 0


def without(data: Path, name: str) -> None:
    (data / name).unlink()


def test_mistakes_end_with_one_line(
    ingest: Ingest, tiny: dict[str, Any], data: Path, tmp_path: Path
) -> None:
    config = f"{tmp_path}/config.yaml: ingest"
    sources = tiny["ingest"]["sources"]

    def fails_with(text: str, **vocabulary: Any) -> None:
        done = ingest(**vocabulary)
        assert done.returncode == 1
        assert done.stdout == ""
        assert done.stderr == f"error: {text}\n"

    sources["ood"]["source"]["images"] = "web"
    fails_with(
        f"{config}.sources.ood.source.images: {data}/web: no such folder; "
        "create it, correct the path, or set `data` to the folder it starts from"
    )
    sources["ood"]["source"]["images"] = "ood/images"

    del sources["val"]["source"]["masks"]
    fails_with(
        f"{config}.sources.val.source: images of role val need label files; "
        "name their folder: `masks: ...`"
    )
    sources["val"]["source"]["masks"] = "val/masks"

    sources["val"]["label_scheme"] = "voc"
    fails_with(
        f"{config}.sources.val.label_scheme: vocabulary 'shapes' has no scheme 'voc'; "
        "it has: none; leave the key out"
    )
    fails_with(
        f"{config}.sources.val.label_scheme: vocabulary 'shapes' has no scheme 'voc'; "
        "it has: camvid, coco",
        label_schemes={"camvid": {1: "disc"}, "coco": {1: "disc"}},
    )
    fails_with(
        f"{tmp_path}/vocabulary.yaml: these keys are wrong; "
        "label_schemes.voc.1 names 'person', which is no class; "
        "use one of: background, disc, box, ignore",
        label_schemes={"voc": {1: "person"}},
    )
    del sources["val"]["label_scheme"]

    (tmp_path / "ids.txt").write_text("0\n7\n")
    sources["ood"]["source"]["ids"] = "ids.txt"
    fails_with(
        f"{config}.sources.ood.source.ids: {tmp_path}/ids.txt: "
        f"line 2: no image '7' in {data}/ood/images; correct the line or remove it"
    )
    del sources["ood"]["source"]["ids"]

    without(data, "val/masks/0.png")
    draw(data / "val/masks/1.png")
    fails_with(
        f"{config}.sources.val.source.masks: {data}/val/masks: 1 image without a mask, "
        f"first: {data}/val/images/0.png; add {data}/val/masks/0.png, or leave the image out"
    )
    Image.new("L", (24, 32)).save(data / "val/masks/0.png")
    fails_with(
        f"{config}.sources.val.source.masks: {data}/val/masks: 1 mask without an image, "
        f"first: {data}/val/masks/1.png; add the image to {data}/val/images, or remove the mask"
    )
    without(data, "val/masks/1.png")
    done = ingest()
    assert done.stderr.splitlines()[-1] == (
        f"error: {data}/val/masks/0.png: the mask is 24 x 32 pixels; "
        f"its image {data}/val/images/0.png is 32 x 24; make them equal"
    )


def test_the_shard_size_of_a_run_is_fixed(
    ingest: Ingest, tiny: dict[str, Any], tmp_path: Path
) -> None:
    tiny["ingest"]["shard_size"] = 64  # all in one shard, so that no row tells
    ingest()
    tiny["ingest"]["shard_size"] = 128
    done = ingest()
    assert done.returncode == 1
    assert done.stderr == (
        f"error: {tmp_path}/config.yaml: ingest.shard_size: 128, "
        "but the images of this run were laid out with 64; "
        "set it back, or start a new run: --set run=NAME\n"
    )
    tiny["run"] = "other"
    assert ingest().returncode == 0


def test_a_damaged_part_is_named_and_made_anew(
    ingest: Ingest, manifest_folder: Path, rows: Rows
) -> None:
    ingest()
    path = manifest_folder / "part-00001.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    done = ingest()
    assert done.returncode == 1
    assert done.stderr == (
        f"error: {path}: damaged manifest part; delete it and run again: it is made anew\n"
    )
    path.unlink()
    assert ingest().returncode == 0
    assert set(rows().status) == {"ok"}
