from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

Ingest = Callable[..., CompletedProcess[str]]
Rows = Callable[[], pd.DataFrame]
Written = Callable[[], set[int]]


def draw(path: Path, color: str = "green") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (32, 24), color).save(path)


def test_every_image_gets_a_row_with_all_columns(ingest: Ingest, rows: Rows) -> None:
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


def test_a_rerun_does_nothing(ingest: Ingest, written: Written) -> None:
    ingest()
    written()
    done = ingest()
    assert "ingest: nothing to do, 2 fresh\n" in done.stderr
    assert written() == set()


def test_new_images_go_to_new_shards(
    ingest: Ingest, rows: Rows, written: Written, data: Path
) -> None:
    ingest()
    written()
    draw(data / "ood/images/00.png")  # would come first in its folder
    done = ingest()
    assert "ingest: 1 image new: shard 2\n" in done.stderr
    assert written() == {2}
    assert list(rows().loc["ood/images/00.png", ["row", "shard"]]) == [8, 2]


def test_a_vanished_image_keeps_its_row_and_may_come_back(
    ingest: Ingest, rows: Rows, written: Written, data: Path
) -> None:
    ingest()
    first = rows()
    written()
    path = data / "unlabeled/images/0.png"
    path.rename(data / "elsewhere.png")
    done = ingest()
    assert "ingest: 1 image gone: shard 1\n" in done.stderr
    assert f"warning: 1 image gone; first: {path}: no longer in the source\n" in done.stderr
    assert written() == {1}
    gone = rows().loc["unlabeled/images/0.png", ["status", "row", "width"]]
    assert list(gone) == ["gone", 4, 32]
    (data / "elsewhere.png").rename(path)
    ingest()
    pd.testing.assert_frame_equal(rows().drop(columns="stamp"), first.drop(columns="stamp"))


def test_a_renamed_image_keeps_its_row(ingest: Ingest, rows: Rows, data: Path) -> None:
    ingest()
    before = rows()
    (data / "ood/images/0.png").rename(data / "ood/images/renamed.png")
    ingest()
    table = rows()
    assert "ood/images/0.png" not in table.index
    assert table.status["ood/images/renamed.png"] == "ok"
    assert table.row["ood/images/renamed.png"] == before.row["ood/images/0.png"]


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
    ingest: Ingest, rows: Rows, written: Written, data: Path
) -> None:
    ingest()
    first = rows()
    written()
    draw(data / "ood/images/1.png")
    done = ingest()
    assert "ingest: 1 image changed: shard 1\n" in done.stderr
    assert written() == {1}
    assert rows().image_id["ood/images/1.png"] != first.image_id["ood/images/1.png"]


def test_bad_images_are_rows_and_counted_at_the_end(ingest: Ingest, rows: Rows, data: Path) -> None:
    (data / "ood/images/0.png").write_bytes(b"")
    (data / "labeled/images/1.png").write_text("<html>")
    done = ingest()
    assert done.returncode == 0
    assert done.stderr.endswith(
        f"warning: 2 images rejected; first: {data}/labeled/images/1.png: "
        "an HTML page, which is not decoded\n"
    )
    table = rows()
    assert table.status["ood/images/0.png"] == "rejected"
    assert table.error_message["ood/images/0.png"] == "the file is empty"
    assert table.error_message["labeled/images/1.png"] == "an HTML page, which is not decoded"


def test_classes_without_labeled_pixels_are_warned_about(ingest: Ingest, data: Path) -> None:
    for number in range(2):
        path = data / f"labeled/masks/{number}.png"
        with Image.open(path) as mask:
            class_ids = np.asarray(mask)
        Image.fromarray(class_ids % 2).save(path)
    assert ingest().stderr.endswith("warning: no labeled image has pixels of: box\n")


def test_a_changed_role_makes_its_shards_stale_and_a_comment_none(
    ingest: Ingest,
    maskmill: Ingest,
    rows: Rows,
    written: Written,
    tiny: dict[str, Any],
    write_config: Callable[..., Path],
) -> None:
    ingest()
    written()
    path = write_config(tiny)
    path.write_text(f"# a comment\n\n{path.read_text()}")
    assert "nothing to do" in maskmill("run", "ingest", "--config", path).stderr
    tiny["ingest"]["sources"]["ood"]["role"] = "unlabeled"
    done = ingest()
    assert "ingest: ingest.sources.ood.role ood -> unlabeled: shard 1\n" in done.stderr
    assert written() == {1}
    assert set(rows().role) == {"test", "val", "labeled", "unlabeled"}


def test_a_changed_scheme_makes_its_shards_stale_and_a_class_name_none(
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
