"""The types of rows name the columns of the tables."""

from typing import get_type_hints, is_typeddict

import pytest

from pipeline.records import rows, tables

COLUMNS = [[*get_type_hints(each)] for each in vars(rows).values() if is_typeddict(each)]
"""The keys of every type of a row."""


@pytest.mark.parametrize("table", tables.TABLES, ids=lambda table: table.name)
def test_each_table_has_a_type_of_its_rows(table: tables.Table) -> None:
    assert table.schema.names in COLUMNS
