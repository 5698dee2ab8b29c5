import numpy as np
import pyarrow as pa
import pytest

from pipeline.records import arrays


@pytest.mark.parametrize("values", [[], ["a"], ["", None, "ä", "b" * 300, None], [None] * 9])
def test_texts_are_what_arrow_makes_of_them(values: list[str | None]) -> None:
    found = arrays.texts(values)
    found.validate(full=True)
    assert found.equals(pa.array(values, pa.string()))


@pytest.mark.parametrize("count", [0, 1, 8, 21])
def test_numbers_and_flags_are_what_arrow_makes_of_them(count: int) -> None:
    numbers = np.arange(count, dtype=np.int64) * 2**40
    assert arrays.integers(numbers).equals(pa.array(numbers))
    assert arrays.flags(numbers % 3 == 0).equals(pa.array(numbers % 3 == 0))


@pytest.mark.parametrize("chunks", [[], [[]], [[1, 2]], [[1], [], [2, 3]]])
def test_columns_come_back_as_numbers(chunks: list[list[int]]) -> None:
    column = pa.chunked_array(chunks, pa.int32())
    assert arrays.numbers(column).dtype == np.int32
    assert arrays.numbers(column).tolist() == column.to_pylist()


def test_one_text_compares_and_repeats() -> None:
    assert arrays.text("ok").equals(pa.scalar("ok"))
    assert pa.repeat(arrays.text(None), 2).equals(pa.nulls(2, pa.string()))


def test_rows_that_have_a_text() -> None:
    table = pa.table({"status": ["ok", None, "gone", "ok"], "row": [0, 1, 2, 3]})
    assert arrays.having(table, "status", "ok")["row"].to_pylist() == [0, 3]


def test_a_table_without_rows_keeps_its_columns() -> None:
    schema = pa.schema([("a", pa.int64()), ("b", pa.list_(pa.string()))])
    assert arrays.empty(schema).equals(schema.empty_table())
