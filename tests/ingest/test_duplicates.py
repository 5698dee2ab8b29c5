import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pandas as pd

from pipeline.records import tables
from stages.ingest.duplicates import COMPARED_COLUMNS, contradictions, status_changes

Ingest = Callable[..., CompletedProcess[str]]
Rows = Callable[[], pd.DataFrame]
Written = Callable[[], set[int]]


def image(number: int, image_id: str, role: str = "ood", **columns: Any) -> dict[str, Any]:
    return {
        "image_id": image_id,
        "uri": f"/{number}.png",
        "source": f"{role}-images",
        "role": role,
        "row": number,
        "status": "ok",
        **columns,
    }


def changes(*images: dict[str, Any]) -> dict[int, tuple[str, str | None]]:
    """Status and message of the rows that change."""
    table = tables.IMAGES.rows(images).select(COMPARED_COLUMNS)
    return {
        row["row"]: (row["status"], row["error_message"])
        for row in status_changes(table).to_pylist()
    }


def test_different_images_all_count() -> None:
    assert changes(image(0, "a"), image(1, "b", error_message=None)) == {}


def test_of_equal_images_the_first_row_counts() -> None:
    message = "same content as /1.png of source ood-images"
    assert changes(image(3, "a"), image(1, "a"), image(2, "a")) == {
        2: ("duplicate", message),
        3: ("duplicate", message),
    }


def test_evaluation_roles_keep_an_image_in_any_order_of_rows() -> None:
    roles = ["ood", "unlabeled", "labeled", "val", "test"]
    while len(roles) > 1:
        images = [image(number, "a", role) for number, role in enumerate(roles)]
        assert changes(*images).keys() == {*range(len(roles) - 1)}
        roles.pop()


def test_bad_and_gone_images_make_no_duplicates() -> None:
    gone = image(0, "a", status="gone", error_message="no longer in the source")
    unread = image(1, "a", status="rejected", error_message="damaged")
    good = image(2, "a", status="duplicate", error_message="same content as /0.png")
    assert changes(gone, unread, good) == {2: ("ok", None)}


def test_marking_duplicates_twice_changes_nothing() -> None:
    images = [image(0, "a"), image(1, "a", "val"), image(2, "b"), image(3, "b")]
    found = changes(*images)
    assert found.keys() == {0, 3}
    for one in images:
        if one["row"] in found:
            one["status"], one["error_message"] = found[one["row"]]
    assert changes(*images) == {}


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


def test_a_file_that_two_sources_list_is_used_once_without_a_warning(
    ingest: Ingest, manifest_folder: Path, tiny: dict[str, Any]
) -> None:
    again = {"role": "unlabeled", "source": {"name": "folder", "images": "labeled/images"}}
    tiny["ingest"]["sources"]["again"] = again
    done = ingest()
    statuses = pd.read_parquet(manifest_folder).status
    count = int((statuses == "duplicate").sum())
    assert 0 < count < len(statuses)
    images = f"{count} image{'s are' if count > 1 else ' is'}"
    assert f"ingest: {images} listed by two sources, and used by one\n" in done.stderr
    assert "duplicate" not in done.stderr


def test_an_evaluation_image_added_later_is_taken_out_of_training(
    ingest: Ingest, rows: Rows, written: Written, data: Path
) -> None:
    ingest()
    written()
    shutil.copy(data / "ood/images/1.png", data / "val/images/1.png")
    shutil.copy(data / "val/masks/0.png", data / "val/masks/1.png")
    ingest()
    assert written() == {1, 2}
    table = rows()
    assert table.status["val/images/1.png"] == "ok"
    assert table.status["ood/images/1.png"] == "duplicate"
    assert "ingest: nothing to do, 3 fresh\n" in ingest().stderr


def test_a_run_that_a_wrong_mask_stopped_lets_no_evaluation_image_into_training(
    ingest: Ingest, rows: Rows, data: Path
) -> None:
    ingest()
    shutil.copy(data / "test/images/0.png", data / "ood/images/0.png")
    (data / "labeled/images/9.png").write_bytes((data / "labeled/images/0.png").read_bytes())
    (data / "labeled/masks/9.png").write_bytes(b"no mask")
    assert ingest().returncode == 1
    for kind in ("images", "masks"):
        (data / "labeled" / kind / "9.png").unlink()
    ingest()
    assert rows().status["ood/images/0.png"] == "duplicate"


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


def test_of_equal_images_of_a_role_one_with_a_label_file_counts() -> None:
    found = changes(image(1, "a"), image(2, "a", mask_id="m"), image(3, "a", mask_id="m"))
    message = "same content as /2.png of source ood-images"
    assert found == {1: ("duplicate", message), 3: ("duplicate", message)}


def test_equal_images_with_different_label_files_are_told() -> None:
    images = [image(1, "a", mask_id="m"), image(2, "a", mask_id="n"), image(3, "a")]
    found = changes(*images)
    message = "same content as /1.png of source ood-images"
    assert found[2] == ("duplicate", f"{message}, which has another label file")
    assert found[3] == ("duplicate", message)
    rows = [
        {**each, "status": found[each["row"]][0], "error_message": found[each["row"]][1]}
        for each in images[1:]
    ]
    assert [*contradictions(tables.IMAGES.rows(rows))] == [
        "1 duplicate with another label file than the equal image that is used; first: /2.png: "
        f"{message}, which has another label file"
    ]
    assert [*contradictions(tables.IMAGES.rows(images))] == []
