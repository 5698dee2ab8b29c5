"""The types of rows name the columns of the tables."""

from typing import get_type_hints

import pytest

from pipeline.records import rows, tables

TYPES = {
    tables.SCENES: rows.SceneRow,
    tables.IMAGES: rows.ImageRow,
    tables.PROPOSALS: rows.ProposalsRow,
    tables.PSEUDO_LABELS: rows.LabelRow,
    tables.REPORT_CARD: rows.CardRow,
    tables.METRICS: rows.MetricRow,
    tables.CONFUSION: rows.ConfusionRow,
    tables.REPORT: rows.ReportRow,
}


@pytest.mark.parametrize("table", TYPES, ids=lambda table: table.name)
def test_a_row_has_the_columns_of_its_table(table: tables.Table) -> None:
    assert list(get_type_hints(TYPES[table])) == table.schema.names
