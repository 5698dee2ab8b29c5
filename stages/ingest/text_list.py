"""Lines of text files that name images: the same for `ids`, for lists and for `data split`."""

from pathlib import Path

from pipeline.errors import DataError

_MARK = b"\xef\xbb\xbf"
"""What some editors write at the start of a UTF-8 file."""


def lines(content: bytes) -> list[bytes]:
    r"""The lines of a list, which end with \n or \r\n alone: names may hold any other character."""
    return [line.removesuffix(b"\r") for line in content.removeprefix(_MARK).split(b"\n")]


def read_ids(file: Path, where: str) -> list[str]:
    """The lines of a file of ids, as they are.

    Raises:
        DataError: The file cannot be read, or is not UTF-8.
    """
    try:
        return [line.decode() for line in lines(file.read_bytes())]
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not a UTF-8 text file"
        fix = "write a text file with one image id a line, or leave out `ids`"
        raise DataError(f"cannot read the list: {reason}", where=where, fix=fix) from error


def stripped(line: bytes) -> bytes:
    """A line without the blanks around it, which are seldom part of a name."""
    return line.strip(b" \t\r")


def can_hold(name: str) -> bool:
    """Whether a list that holds a name, in UTF-8, has a line that is this name."""
    try:
        return lines(f"{name}\n".encode()) == [name.encode(), b""]
    except UnicodeEncodeError:
        return False
