from typing import Any

from stages.ingest.duplicates import settle


def row(number: int, image_id: str, role: str = "ood", **columns: Any) -> dict[str, Any]:
    return {
        "image_id": image_id,
        "uri": f"/{number}.png",
        "source": f"{role}-images",
        "role": role,
        "row": number,
        "status": "ok",
        **columns,
    }


def test_different_images_all_count() -> None:
    assert settle([row(0, "a"), row(1, "b", status="ok", error_message=None)]) == []


def test_of_equal_images_the_first_row_counts() -> None:
    rows = [row(3, "a"), row(1, "a"), row(2, "a")]
    changed = settle(rows)
    assert [one["row"] for one in changed] == [2, 3]
    assert [one["status"] for one in rows] == ["duplicate", "ok", "duplicate"]
    assert rows[0]["error_message"] == "same content as /1.png of source ood-images"


def test_evaluation_roles_win_whatever_the_rows() -> None:
    roles = ["ood", "unlabeled", "labeled", "val", "test"]
    while roles:
        rows = [row(number, "a", role) for number, role in enumerate(roles)]
        settle(rows)
        assert [one["status"] for one in rows] == ["duplicate"] * (len(roles) - 1) + ["ok"]
        roles.pop()


def test_what_is_bad_or_gone_takes_nothing_from_others() -> None:
    gone = row(0, "a", status="gone", error_message="no longer in the source")
    unread = row(1, "a", status="rejected", error_message="damaged")
    good = row(2, "a", status="duplicate", error_message="same content as /0.png")
    assert settle([gone, unread, good]) == [good]
    assert good["status"] == "ok"
    assert good["error_message"] is None
    assert gone["status"] == "gone"


def test_settling_twice_changes_nothing() -> None:
    rows = [row(0, "a"), row(1, "a", "val"), row(2, "b"), row(3, "b")]
    assert len(settle(rows)) == 2
    assert settle(rows) == []
