"""Reads annotation files as text, and JSON piece by piece."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Generator, Iterator
from typing import Any, NamedTuple, NoReturn

from pipeline import stopping
from pipeline.errors import DataError
from pipeline.files import storage
from stages.ingest.annotations.shapes import refuse

_SPACE = re.compile(r"[ \t\n\r]*")
_MAX_BYTES = 2**32


def read_content(file: str) -> bytes:
    """The bytes of a file.

    Args:
        file: Its path or address.

    Raises:
        DataError: The file is missing, cannot be read, or is larger than 4 GiB.
        StorageError: The object store does not answer.
    """
    try:
        return storage.read_bytes(file, _MAX_BYTES)
    except storage.TooLargeError as error:
        reason = f"{error.size:,} bytes; at most {_MAX_BYTES:,} are read"
    except (OSError, storage.NoPlainFileError) as error:
        reason = getattr(error, "strerror", None) or "no plain file"
    fix = "name an existing annotation file"
    raise DataError(f"cannot read the annotations: {reason}", where=file, fix=fix)


def read_text(file: str) -> str:
    """The text of a file.

    Raises:
        DataError: See `read_content`; or it is not UTF-8 text.
        StorageError: The object store does not answer.
    """
    try:
        return read_content(file).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        what = "cannot read the annotations: not UTF-8 text"
        raise DataError(what, where=file, fix="save the file as UTF-8 text") from error


class Member(NamedTuple):
    """A part of a document.

    Attributes:
        key: Its name, or that of the array that it is in.
        number: Its number in this array, from 0.
        value: Its value.
        position: Its place in the text, for `JsonText.at`.
    """

    key: str
    number: int
    value: Any
    position: int


class JsonText:
    """A JSON document that is decoded element by element.

    As a whole, a file of annotations takes several times its size in memory.

    Args:
        file: Path or address of the file.

    Raises:
        DataError: See `read_text`.
    """

    def __init__(self, file: str) -> None:
        self.file = file
        self._text = read_text(file)
        self._decoder = json.JSONDecoder()

    def whole(self) -> Any:
        """The value of the document."""
        value, end = self._value(self._after_space(0))
        self._check_end(end)
        return value

    def is_array(self) -> bool:
        """Whether the document is an array."""
        return self._character(self._after_space(0)) == "["

    def members(self, arrays: Collection[str]) -> Iterator[Member]:
        """Yields the members of a document that is an object; arrays of these names by elements."""
        at = self._expect("{", 0)
        while self._character(at) != "}":
            key, end = self._value(at)
            if not isinstance(key, str):
                self._refuse("a name in quotes is missing", at)
            at = self._expect(":", end)
            if key in arrays and self._character(at) == "[":
                at = yield from self._elements(key, at)
            else:
                value, end = self._value(at)
                yield Member(key, 0, value, at)
                at = self._after_space(end)
            at = self._after_comma(at, "}")
        self._check_end(at + 1)

    def elements(self) -> Iterator[Member]:
        """Yields the elements of a document that is an array."""
        self._check_end((yield from self._elements("", self._after_space(0))))

    def at(self, position: int) -> Any:
        """The value at a position that was decoded before."""
        return self._value(position)[0]

    def _elements(self, key: str, at: int) -> Generator[Member, None, int]:
        """Yields the elements of an array, and returns the position behind it."""
        at = self._expect("[", at)
        number = 0
        while self._character(at) != "]":
            stopping.check()
            value, end = self._value(at)
            yield Member(key, number, value, at)
            at = self._after_comma(self._after_space(end), "]")
            number += 1
        return self._after_space(at + 1)

    def _value(self, at: int) -> tuple[Any, int]:
        try:
            return self._decoder.raw_decode(self._text, at)
        except json.JSONDecodeError as error:
            self._refuse(error.msg[:1].lower() + error.msg[1:], error.pos)
        except RecursionError:
            self._refuse("arrays or objects are nested too deeply", at)
        except ValueError:  # an integer of thousands of digits
            self._refuse("a number is too long", at)

    def _after_comma(self, at: int, end: str) -> int:
        if self._character(at) == end:
            return at
        after = self._expect(",", at)
        if self._character(after) == end:
            self._refuse(f"a value is missing before `{end}`", after)
        return after

    def _expect(self, character: str, at: int) -> int:
        at = self._after_space(at)
        if self._character(at) != character:
            self._refuse(f"`{character}` is missing", at)
        return self._after_space(at + 1)

    def _character(self, at: int) -> str:
        return self._text[at : at + 1]

    def _after_space(self, at: int) -> int:
        found = _SPACE.match(self._text, at)
        assert found is not None  # it may be empty
        return found.end()

    def _check_end(self, at: int) -> None:
        if (end := self._after_space(at)) < len(self._text):
            self._refuse("there is more after the end", end)

    def _refuse(self, what: str, at: int) -> NoReturn:
        where = f"{self.file}: line {self._text.count(chr(10), 0, at) + 1}"
        refuse(f"no valid JSON: {what}", where, "export the file again")
