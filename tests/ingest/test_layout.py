from typing import Any

import pyarrow as pa
import pytest

from pipeline.errors import DataError
from pipeline.records import tables
from pipeline.records.sharded_table import ShardedTable
from stages.ingest.layout import assign_rows
from stages.ingest.sources.base import Listed, listing


def entries(*names: str, source: str = "web") -> Any:
    table = listing(Listed(name) for name in names)
    for column, value in (("source", source), ("role", "ood"), ("scheme", None)):
        table = table.append_column(column, pa.array([value] * len(names), pa.string()))
    return table


def known(*rows: tuple[str, int], source: str = "web") -> Any:
    """A manifest of shards of two rows."""
    table = tables.IMAGES.rows(
        {"uri": uri, "source": source, "role": "ood", "row": row, "shard": row // 2}
        for uri, row in rows
    )
    return table.select


def assigned(listed: Any, read: Any, **contents: str) -> ShardedTable:
    """The layout in shards of two rows."""
    return assign_rows(listed, read, 2, contents, {}).table


def shown(layout: ShardedTable) -> dict[int, list[tuple[int, str, bool]]]:
    return {
        shard: [(entry["row"], entry["image"], entry["present"]) for entry in layout.rows(shard)]
        for shard in layout.shards
    }


def test_rows_follow_the_listing_and_fill_shards() -> None:
    assert shown(assigned(entries("a", "b", "c"), known())) == {
        0: [(0, "a", True), (1, "b", True)],
        1: [(2, "c", True)],
    }


def test_known_images_keep_their_rows_in_any_order_of_the_listing() -> None:
    assert shown(assigned(entries("b", "c", "a"), known(("a", 0), ("b", 1), ("c", 2)))) == {
        0: [(0, "a", True), (1, "b", True)],
        1: [(2, "c", True)],
    }


def test_new_images_go_to_new_shards_though_the_last_has_room() -> None:
    assert shown(assigned(entries("a", "b", "c", "d"), known(("a", 0)))) == {
        0: [(0, "a", True)],
        1: [(2, "b", True), (3, "c", True)],
        2: [(4, "d", True)],
    }


def test_a_vanished_image_keeps_its_row_and_gets_it_back() -> None:
    manifest_rows = known(("a", 0), ("b", 1), ("c", 2))
    assert shown(assigned(entries("a", "d"), manifest_rows)) == {
        0: [(0, "a", True), (1, "b", False)],
        1: [(2, "c", False)],
        2: [(4, "d", True)],
    }
    assert shown(assigned(entries("b"), manifest_rows))[0][1] == (1, "b", True)


def test_the_same_file_in_two_sources_has_two_rows() -> None:
    both = pa.concat_tables([entries("a"), entries("a", source="other")])
    assert shown(assigned(both, known(("a", 0)))) == {
        0: [(0, "a", True)],
        1: [(2, "a", True)],
    }


def test_an_image_of_an_archive_keeps_its_row_wherever_it_lies_in_it() -> None:
    before = known(("web/0.tar#a.jpg@512+7", 0), ("web/0.tar#b.jpg@1536+7", 1), ("c@1+1", 2))
    now = entries("web/0.tar#b.jpg@512+7", "web/0.tar#a.jpg@2048+9", "c@2+2")
    assert shown(assigned(now, before)) == {
        0: [(0, "web/0.tar#a.jpg@2048+9", True), (1, "web/0.tar#b.jpg@512+7", True)],
        1: [(2, "c@1+1", False)],
        2: [(4, "c@2+2", True)],
    }


@pytest.mark.parametrize("names", [("a",), ("a", "b"), ()])
def test_an_image_listed_twice_is_an_error(names: tuple[str, ...]) -> None:
    manifest_rows = known(*((name, row) for row, name in enumerate(names)))
    with pytest.raises(DataError, match=r"^a: source web lists this image twice; "):
        assigned(entries("a", "b", "a"), manifest_rows)
    doubled = known(("a", 0), ("a", 0))
    with pytest.raises(DataError, match=r"^a: source web lists this image twice; "):
        assigned(entries("a", "a"), doubled)


def test_a_row_that_is_known_twice_is_kept_once() -> None:
    assert shown(assigned(entries("a", "b"), known(("a", 0), ("a", 0), ("b", 1)))) == {
        0: [(0, "a", True), (1, "b", True)]
    }
