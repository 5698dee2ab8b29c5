"""Reads YAML text within bounds: the core schema of YAML 1.2, no key twice, no expanding aliases.

Values are built from PyYAML's events, not by its loaders: those follow YAML 1.1, where `on` is true
and 1:30 is 90, keep the last of two equal keys, and bound neither depth nor aliases.
"""

import math
import re
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import yaml

from pipeline.config.config_merge import EMPTY

MAX_BYTES = 1 << 20
"""Size of a text, in UTF-8."""
MAX_DEPTH = 50
"""Mappings and lists inside each other."""
MAX_VALUES = 100_000
"""Values of a text, with those that aliases repeat."""
_MAX_DIGITS = 1000

_INTEGER = re.compile(r"[-+]?[0-9]+")
_OTHER_BASES = {"0x": (re.compile(r"0x[0-9a-fA-F]+"), 16), "0o": (re.compile(r"0o[0-7]+"), 8)}
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_CONSTANTS: dict[str, Any] = {
    **dict.fromkeys(("null", "Null", "NULL", "~"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
    **{f"{sign}.{word}": math.inf for sign in ("", "+") for word in ("inf", "Inf", "INF")},
    **{f"-.{word}": -math.inf for word in ("inf", "Inf", "INF")},
}
_MERGE = "<<"
_UNPRINTABLE = re.compile(
    "[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"  # what YAML allows
)
FIX = "correct it"
"""The fix of what has no better one."""


class YamlError(Exception):
    """A text that is no YAML, or none that is read here.

    Attributes:
        what: What is wrong.
        line: Where, from 1.
        fix: What to do.
    """

    def __init__(self, what: str, line: int, fix: str = FIX) -> None:
        super().__init__(what)
        self.what, self.line, self.fix = what, line, fix


def parse(text: str) -> Any:
    """Reads the value of a YAML text.

    Plain scalars follow the core schema: integers are decimal (010 is 10), 0x1f and 0o17 are
    hexadecimal and octal, 1e-3 is a float, and all else but null, true and false is text: yes, on,
    1:30, 1_000, 2024-01-31. A key is an integer or text. `<<` merges mappings, whose keys give way
    to written ones.

    Returns:
        Dicts, lists, texts, numbers, booleans and None; `EMPTY` for a value that is left empty.

    Raises:
        YamlError: The text is not YAML, is too large or too deep, writes a key twice in a mapping
            ("1", 1 and 01 are the same key), or uses tags.
    """
    if len(text) > MAX_BYTES:
        raise YamlError(f"longer than {MAX_BYTES:,} characters", 1, "shorten it")
    if found := _UNPRINTABLE.search(text):
        line = text.count("\n", 0, found.start()) + 1
        raise YamlError(f"the character {_code(found[0])} is not allowed", line, "remove it")
    return _Reader(text).read()


class _Reader:
    """Builds the value of one text from its events."""

    def __init__(self, text: str) -> None:
        self._line = 1
        self._values = 0
        self._events = self._parsed(text)
        self._anchors: dict[str, tuple[Any, int] | None] = {}
        """By anchor its value and the number of values in it; None as long as it is read."""

    def read(self) -> Any:
        next(self._events)  # the start of the stream
        if isinstance(next(self._events), yaml.StreamEndEvent):
            return EMPTY
        value = self._value(next(self._events), 0)
        next(self._events)  # the end of the document
        if not isinstance(next(self._events), yaml.StreamEndEvent):
            raise YamlError("a second document begins here", self._line, "write one document")
        return value

    def _parsed(self, text: str) -> Iterator[Any]:
        """PyYAML's events; keeps the line of the last one."""
        try:
            for event in yaml.parse(text, Loader=yaml.SafeLoader):
                self._line = self._line if event.start_mark is None else event.start_mark.line + 1
                yield event
        except yaml.MarkedYAMLError as error:
            line = self._line if error.problem_mark is None else error.problem_mark.line + 1
            what = " ".join(str(error.problem or error.context).split())
            raise YamlError(f"not valid YAML: {what}", line) from error
        except (ValueError, OverflowError) as error:  # "\UFFFFFFFF"
            raise YamlError("not valid YAML: no such character", self._line) from error

    def _value(self, event: Any, depth: int) -> Any:
        if isinstance(event, yaml.AliasEvent):
            return self._repeated(str(event.anchor))
        if getattr(event, "tag", None) not in (None, "!"):
            fix = "remove it; put text into quotes"
            raise YamlError(f"the tag {event.tag!r} is not supported", self._line, fix)
        before = self._values
        self._count(1)
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        if isinstance(event, yaml.ScalarEvent):
            value = self._scalar(event)
        elif depth == MAX_DEPTH:
            raise YamlError(f"nested deeper than {MAX_DEPTH} levels", self._line)
        elif isinstance(event, yaml.SequenceStartEvent):
            value = [self._value(item, depth + 1) for item in self._until(yaml.SequenceEndEvent)]
        else:
            value = self._mapping(depth + 1)
        if event.anchor is not None:
            self._anchors[event.anchor] = value, self._values - before
        return value

    def _until(self, end: type[Any]) -> Iterator[Any]:
        while not isinstance(event := next(self._events), end):
            yield event

    def _mapping(self, depth: int) -> dict[Any, Any]:
        written: dict[Any, Any] = {}
        merged: list[dict[Any, Any]] = []
        seen: dict[Any, tuple[str, int]] = {}
        for event in self._until(yaml.MappingEndEvent):
            line = self._line
            if isinstance(event, yaml.ScalarEvent) and _is_plain(event, _MERGE):
                key: Any = _MERGE
                same: Any = (_MERGE,)  # the quoted text is a key like others
            else:
                key = self._key(event, depth)
                is_number = len(str(key)) <= _MAX_DIGITS and _INTEGER.fullmatch(str(key))
                same = int(key) if is_number else key
            spelled = str(key) if getattr(event, "style", None) is None else repr(key)
            if isinstance(key, int):
                spelled = getattr(event, "value", spelled)  # 01 is 1
            if same in seen:
                raise _repeated_key(seen[same], (spelled, line))
            seen[same] = (spelled, line)
            value = self._value(next(self._events), depth)
            if same == (_MERGE,):
                merged += self._merged(value, line)
            else:
                written[key] = value
        for values in merged:  # the first that has a key decides
            written |= {key: value for key, value in values.items() if key not in written}
        return written

    def _key(self, event: Any, depth: int) -> str | int:
        """A key: an integer, or text as written."""
        line = self._line
        value = self._value(event, depth)
        if isinstance(value, dict | list):
            raise YamlError("a mapping or list cannot be a key", line)
        if value is EMPTY:
            raise YamlError("a key is missing", line, "write it before the colon")
        if isinstance(value, str) or type(value) is int:
            return value
        return str(getattr(event, "value", value))

    def _merged(self, value: Any, line: int) -> list[dict[Any, Any]]:
        found = value if isinstance(value, list) else [value]
        if not all(isinstance(item, dict) for item in found):
            raise YamlError("`<<` merges mappings only", line, "name a mapping: `<<: *name`")
        return found

    def _repeated(self, anchor: str) -> Any:
        """The value that an alias stands for, as an object of its own."""
        if anchor not in self._anchors:
            raise YamlError(f"*{anchor} is not defined before", self._line, f"write &{anchor}")
        if (found := self._anchors[anchor]) is None:
            raise YamlError(f"*{anchor} stands for what it is a part of", self._line)
        value, count = found
        self._count(count)
        return deepcopy(value)

    def _count(self, values: int) -> None:
        self._values += values
        if self._values > MAX_VALUES:
            what = f"more than {MAX_VALUES:,} values, with those that aliases repeat"
            raise YamlError(what, self._line, "shorten it")

    def _scalar(self, event: yaml.ScalarEvent) -> Any:
        text: str = event.value
        if event.implicit[0] and event.style is None:
            return EMPTY if text == "" else self._plain(text)
        if "\0" in text:
            raise YamlError("the character U+0000 is not allowed", self._line, "remove it")
        try:  # JSON writes characters beyond U+FFFF as two halves
            return text.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError as error:
            what = "half a character (U+D800 to U+DFFF) is not allowed"
            raise YamlError(what, self._line, "write the character itself") from error

    def _plain(self, text: str) -> Any:
        """The value of a text without quotes, by the core schema."""
        if text in _CONSTANTS:
            return _CONSTANTS[text]
        pattern, base = _OTHER_BASES.get(text[:2], (_INTEGER, 10))
        is_integer = pattern.fullmatch(text) is not None
        if not is_integer and not _FLOAT.fullmatch(text):
            return text
        if len(text) > _MAX_DIGITS:
            what = f"a number of {len(text):,} digits"
            raise YamlError(what, self._line, "put it into quotes if it is text")
        if is_integer:
            return int(text.removeprefix("0x").removeprefix("0o"), base)
        if math.isinf(number := float(text)):
            raise YamlError(
                f"the number {text} is too large", self._line, "write .inf for infinity"
            )
        return number


def _repeated_key(first: tuple[str, int], second: tuple[str, int]) -> YamlError:
    """An error about two keys, each with its line."""
    (name, line), (again, other) = first, second
    what = f"the key {again} is written twice, in lines {line} and {other}"
    if name != again:
        what = f"the keys {name} in line {line} and {again} in line {other} are the same"
    return YamlError(what, other, "keep one of them")


def _is_plain(event: yaml.ScalarEvent, text: str) -> bool:
    return event.value == text and event.style is None


def _code(char: str) -> str:
    return f"U+{ord(char):04X}"
