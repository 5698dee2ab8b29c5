import os

from stages.ingest.sources.base import LISTING, Listed, listing


def test_a_listing_is_a_table_of_text() -> None:
    images = [Listed("/a/é.png", caption="two\nlines"), Listed("/b.png", "/m.png", stamp="1:2")]
    table = listing(images)
    assert table.schema.equals(LISTING)
    assert [Listed(**row) for row in table.to_pylist()] == images


def test_an_empty_listing_has_the_columns_too() -> None:
    assert listing([]).schema.equals(LISTING)


def test_names_that_are_not_utf_8_are_escaped_and_a_problem() -> None:
    [row] = listing([Listed(os.fsdecode(b"/a/\xe9.png"))]).to_pylist()
    assert row["image"] == r"/a/\udce9.png"
    assert row["problem"] == "its name is not UTF-8 text"


def test_captions_that_are_no_text_are_escaped_alone() -> None:
    [row] = listing([Listed("/a.png", caption="\ud800")]).to_pylist()
    assert (row["caption"], row["problem"]) == (r"\ud800", None)
