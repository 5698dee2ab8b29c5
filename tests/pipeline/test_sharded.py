from typing import Any

import pyarrow as pa
import pytest

from pipeline.records.sharded_table import ShardedTable, digest_rows


def table(*rows: tuple[int, str | None], flag: bool = True) -> pa.Table:
    places, names = zip(*rows, strict=True)
    columns: dict[str, Any] = {"row": places, "name": pa.array(names, pa.string())}
    return pa.table({**columns, "flag": [flag] * len(rows)})


def test_rows_are_ordered_and_cut_into_shards() -> None:
    sharded = ShardedTable(table((9, "j"), (0, "a"), (5, "f"), (3, "d")), 4)
    assert sharded.shards == [0, 1, 2]
    assert [row["name"] for row in sharded.rows(0)] == ["a", "d"]
    assert sharded[2].num_rows == 1
    assert ShardedTable(table((0, "a")).slice(1), 4).shards == []


def test_digests_are_of_the_shard_s_own_rows() -> None:
    before = ShardedTable(table((0, "a"), (1, "b"), (4, "e"), (5, "f")), 4)
    after = ShardedTable(table((0, "a"), (1, "b"), (4, "e"), (5, "F")), 4)
    first, second = before.digests(["row", "name"]), after.digests(["row", "name"])
    assert first[0] == second[0]
    assert first[1] != second[1]
    assert before.digests(["row"]) == after.digests(["row"])
    assert before.digests(["row", "name"])[1] == digest_rows(before[1].select(["row", "name"]))


@pytest.mark.parametrize(
    "other",
    [
        table((0, "ab"), (1, "c")),
        table((0, "a"), (1, "bc")).slice(0, 1),
        table((0, "a"), (1, None)),
        table((0, ""), (1, "abc")),
        table((0, None), (1, "abc")),
        table((1, "a"), (0, "bc")),
        table((0, "a"), (1, "bc"), flag=False),
    ],
)
def test_other_rows_have_another_digest(other: pa.Table) -> None:
    assert digest_rows(other) != digest_rows(table((0, "a"), (1, "bc")))


def test_a_digest_does_not_depend_on_how_arrow_keeps_the_rows() -> None:
    whole = table((0, "a"), (1, None), (2, "ü"), (3, ""))
    pieces = pa.concat_tables([whole.slice(0, 1), whole.slice(1, 2), whole.slice(3)])
    assert digest_rows(pieces) == digest_rows(whole)
    assert digest_rows(whole.slice(1, 2)) == digest_rows(table((1, None), (2, "ü")))
