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


def test_a_name_that_reads_like_an_escaped_one_keeps_its_own_place() -> None:
    names = [b"/\xff.png", rb"/\udcff.png", rb"/\u0dcff.png", b"/\xff\\udcff.png", b"/\xff\xff.png"]
    for order in (names, names[::-1]):
        table = listing(Listed(os.fsdecode(name)) for name in order)
        assert len(set(table["image"].to_pylist())) == len(names)
        rows = dict(zip(order, table.to_pylist(), strict=True))
        for name in (rb"/\udcff.png", rb"/\u0dcff.png"):
            assert (rows[name]["image"], rows[name]["problem"]) == (name.decode(), None)
        assert all(rows[name]["problem"] for name in names if b"\xff" in name)


def test_in_an_archive_names_are_distinguished_without_their_position() -> None:
    names = [b"/0.tar#\xff.png@512+7", rb"/0.tar#\udcff.png@1536+7"]
    found = listing(Listed(os.fsdecode(name)) for name in names)["image"].to_pylist()
    assert found == [r"/0.tar#\u0dcff.png@512+7", r"/0.tar#\udcff.png@1536+7"]
