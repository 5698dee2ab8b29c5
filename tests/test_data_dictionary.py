from pipeline.records import tables
from tests.repository import ROOT


def test_the_data_dictionary_is_what_the_code_says() -> None:
    written = (ROOT / "manifests/README.md").read_text(encoding="utf-8")
    assert written == tables.data_dictionary()


def test_every_column_of_every_table_is_described() -> None:
    text = tables.data_dictionary()
    for table in tables.TABLES:
        section = text.partition(f"\n## {table.name}\n")[2].partition("\n## ")[0]
        documented = [line.split("`")[1] for line in section.splitlines() if line.startswith("| `")]
        assert documented == [field.name for field in table.schema]
        assert all(len(field.metadata[b"description"]) > 8 for field in table.schema)
