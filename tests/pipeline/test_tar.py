import io
import random
import re
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.files import tar
from pipeline.images import images
from pipeline.images.faults import UnreadableImageError
from pipeline.images.limits import Limits

FILES = {
    "000.jpg": b"first",
    "000.txt": b"",
    "sub/folder/001.jpg": bytes(range(256)) * 5,
    "é" * 90 + ".png": b"a long name that is not ASCII",
    "long/" * 30 + "x.png": b"a long name",
}
Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes an archive of `FILES`, or of others: ``write(tarfile.PAX_FORMAT)``."""

    def write(
        kind: int = tarfile.PAX_FORMAT,
        files: dict[str, bytes] = FILES,
        change: Callable[[tarfile.TarInfo], None] = lambda info: None,
    ) -> str:
        path = tmp_path / "00000.tar"
        with tarfile.open(path, "w", format=kind) as archive:
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.size, info.mtime = len(content), 1.5  # img2dataset's are fractions too
                change(info)
                archive.addfile(info, io.BytesIO(content))
        return str(path)

    return write


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_every_file_is_listed_and_read_back_by_its_address(kind: int, write: Write) -> None:
    entries = list(tar.entries(write(kind)))
    assert [entry.member.name for entry in entries] == list(FILES)
    assert {(entry.kind, entry.whole) for entry in entries} == {("a file", True)}
    for entry, content in zip(entries, FILES.values(), strict=True):
        if content:
            assert images.read_bytes(entry.member.uri) == content


def test_ustar_names_in_two_parts_are_put_together(write: Write) -> None:
    name = "folder/" * 20 + "x.jpg"
    [entry] = tar.entries(write(tarfile.USTAR_FORMAT, {name: b"content"}))
    assert entry.member.name == name


def test_an_address_says_archive_name_and_place() -> None:
    uri = "/web/a.tar#sub/0#@1+1.jpg@1536+20"
    member = tar.parse(uri)
    assert member == tar.Member("/web/a.tar", "sub/0#@1+1.jpg", 1536, 20)
    assert member.uri == uri
    assert tar.without_position(uri) == "/web/a.tar#sub/0#@1+1.jpg"
    for plain in ("/web/a.jpg", "/web/a.tar", "/web/a.tar#b.jpg", "/web/a.tar#b.jpg@1+", "b@1+2"):
        assert tar.parse(plain) is None
        assert tar.without_position(plain) == plain


KINDS = {
    tarfile.SYMTYPE: "a link",
    tarfile.LNKTYPE: "a link",
    tarfile.DIRTYPE: "a folder",
    tarfile.CHRTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_is_reported(kind: bytes, write: Write) -> None:
    def change(info: tarfile.TarInfo) -> None:
        if info.name == "a.jpg":
            info.type, info.linkname, info.size = kind, "/etc/passwd", 0

    first, second = tar.entries(write(files={"a.jpg": b"", "b.jpg": b"b"}, change=change))
    assert first.kind == KINDS[kind]
    assert (second.kind, second.member.name) == ("a file", "b.jpg")


def test_an_archive_that_was_cut_lists_what_it_holds(write: Write) -> None:
    path = Path(write(tarfile.USTAR_FORMAT, {"a.jpg": bytes(600), "b.jpg": bytes(600)}))
    content = path.read_bytes()
    path.write_bytes(content[: 512 + 1024 + 512 + 100])
    first, second = tar.entries(str(path))
    assert (first.whole, second.whole) == (True, False)
    with pytest.raises(UnreadableImageError, match="the archive ends in the middle of it"):
        images.read_bytes(second.member.uri)
    path.write_bytes(content[: 512 + 1024 + 100])
    found = tar.entries(str(path))
    assert next(found).whole
    with pytest.raises(
        tar.DamagedArchiveError, match="ends in the middle of the header at byte 1,536"
    ):
        next(found)


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(b"<html>" * 200)
    with pytest.raises(tar.DamagedArchiveError, match=r"^no tar header at byte 0$"):
        list(tar.entries(str(path)))


def test_hostile_bytes_raise_nothing_else_and_end(write: Write) -> None:
    path = Path(write())
    good = path.read_bytes()
    dice = random.Random(0)
    refused = 0
    for _ in range(80):
        content = bytearray(good)
        start = dice.choice([0, 512, 1024, 1536, 2048, 2560, 3072])
        for _ in range(dice.choice((1, 3))):
            content[start + dice.choice((*range(124, 137), 156, 345, *range(512)))] = (
                dice.randrange(256)
            )
        header = bytearray(content[start : start + 512])
        header[148:156] = b" " * 8
        if dice.random() < 0.7:  # a checksum that fits, so that more than the checksum is tried
            content[start + 148 : start + 156] = b"%06o\0 " % sum(header)
        path.write_bytes(content)
        try:
            for entry in tar.entries(str(path)):
                assert entry.member.offset > 0
                assert entry.member.size >= 0
        except tar.DamagedArchiveError:
            refused += 1
    assert refused > 10


def test_a_pax_header_that_repeats_itself_for_ever_is_refused(tmp_path: Path) -> None:
    for record in (b"0 path=x\n", b"-9 path=x\n", b"99999999999 path=x\n", b"path"):
        block = tarfile.TarInfo("pax")
        block.type, block.size = b"x", len(record)
        path = tmp_path / "x.tar"
        path.write_bytes(block.tobuf() + record.ljust(512, b"\0") + bytes(1024))
        with pytest.raises(tar.DamagedArchiveError, match="damaged pax header"):
            list(tar.entries(str(path)))


def test_an_archive_that_was_written_again_is_noticed(write: Write) -> None:
    files = {"a.jpg": b"a" * 100, "b.jpg": b"b" * 100}
    second = list(tar.entries(write(files=files)))[1].member
    assert images.read_bytes(second.uri) == b"b" * 100
    write(files={"0.jpg": b"0" * 3000, **files})
    with pytest.raises(UnreadableImageError, match="no longer at this place of the archive"):
        images.read_bytes(second.uri)


def test_limits_hold_in_archives_too(write: Write) -> None:
    [entry] = tar.entries(write(files={"a.jpg": bytes(1000)}))
    with pytest.raises(UnreadableImageError, match=r"^1,000 bytes; at most 999 are read$"):
        images.read_bytes(entry.member.uri, Limits(max_bytes=999))
    assert images.read_bytes(entry.member.uri, Limits(max_bytes=1000)) == bytes(1000)
    far = f"{entry.member.archive}#a.jpg@99999999+5"
    with pytest.raises(UnreadableImageError, match="no longer at this place of the archive"):
        images.read_bytes(far)
    with pytest.raises(UnreadableImageError, match=re.escape("No such file")):
        images.read_bytes("/none.tar#a.jpg@512+5")
