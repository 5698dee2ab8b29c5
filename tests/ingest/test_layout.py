import os
from pathlib import Path
from typing import Any

from pipeline import manifest
from stages.ingest.layout import Entry, as_text, lay_out, stamp


def entries(*names: str, source: str = "web") -> list[Entry]:
    return [Entry(name, None, source, "ood", None) for name in names]


def known(*rows: tuple[str, int], source: str = "web") -> Any:
    """A manifest of shards of two rows."""
    return manifest.IMAGES.rows(
        {"uri": uri, "source": source, "role": "ood", "row": row, "shard": row // 2}
        for uri, row in rows
    )


def shown(shards: dict[int, list[Entry]]) -> dict[int, list[tuple[int, str, bool]]]:
    return {
        shard: [(entry.row, str(entry.uri), entry.gone is None) for entry in entries]
        for shard, entries in shards.items()
    }


def test_rows_follow_the_listing_and_fill_shards() -> None:
    assert shown(lay_out(entries("a", "b", "c"), known(), 2)) == {
        0: [(0, "a", True), (1, "b", True)],
        1: [(2, "c", True)],
    }


def test_known_images_keep_their_rows_in_whatever_order_they_are_listed() -> None:
    assert shown(lay_out(entries("b", "c", "a"), known(("a", 0), ("b", 1), ("c", 2)), 2)) == {
        0: [(0, "a", True), (1, "b", True)],
        1: [(2, "c", True)],
    }


def test_new_images_go_to_new_shards_though_the_last_has_room() -> None:
    assert shown(lay_out(entries("a", "b", "c", "d"), known(("a", 0)), 2)) == {
        0: [(0, "a", True)],
        1: [(2, "b", True), (3, "c", True)],
        2: [(4, "d", True)],
    }


def test_a_vanished_image_keeps_its_row_and_gets_it_back() -> None:
    manifest_rows = known(("a", 0), ("b", 1), ("c", 2))
    shards = lay_out(entries("a", "d"), manifest_rows, 2)
    assert shown(shards) == {
        0: [(0, "a", True), (1, "b", False)],
        1: [(2, "c", False)],
        2: [(4, "d", True)],
    }
    assert shards[0][1].gone == manifest_rows.to_pylist()[1]
    assert shown(lay_out(entries("b"), manifest_rows, 2))[0][1] == (1, "b", True)


def test_the_same_file_in_two_sources_has_two_rows() -> None:
    both = entries("a") + entries("a", source="other")
    assert shown(lay_out(both, known(("a", 0)), 2)) == {
        0: [(0, "a", True)],
        1: [(2, "a", True)],
    }


def test_a_stamp_changes_with_size_and_time(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("one")
    first = stamp(str(path))
    os.utime(path, ns=(1, 1))
    second = stamp(str(path))
    path.write_text("longer")
    os.utime(path, ns=(1, 1))
    assert len({first, second, stamp(str(path))}) == 3
    assert stamp(str(tmp_path / "none")) is None
    assert stamp(None) is None


def test_names_that_are_not_utf_8_are_escaped() -> None:
    assert as_text("/a/é.png") == "/a/é.png"
    assert as_text(os.fsdecode(b"/a/\xe9.png")) == r"/a/\udce9.png"
