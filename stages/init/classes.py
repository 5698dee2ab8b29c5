"""The classes of a new project, and which values of label files stand for them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.config.label_values import IGNORE, canonical
from pipeline.errors import ConfigError
from stages.init.labels_seen import LabelsSeen

BACKGROUND = "background"
IGNORED = "ignore"
_IGNORED_NAMES = re.compile("ignore|unlabell?ed|void|unknown|don'?t care", re.IGNORECASE)
_IGNORED_COLORS = ("#ffffff", "#e0e0c0")
"""White, and the border in label files of Pascal VOC."""
_SYNTAX = 'write --classes "car, person", or with values or colours "car=7, person=#ff0000"'


@dataclass(frozen=True)
class Classes:
    """Class names, and what stands for them in label files.

    Attributes:
        names: The names in the order of their ids.
        scheme: By value or colour: a class name or "ignore". Empty: values are class ids.
        remarks: What was assumed, for the user to check.
    """

    names: tuple[str, ...]
    scheme: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    @property
    def meanings(self) -> dict[str, str]:
        """What each value means, also where it is simply the class id."""
        return dict(self.scheme) or {str(number): name for number, name in enumerate(self.names)}


def parsed(text: str) -> dict[str, list[str]]:
    """Reads `--classes`: by name, the values or colours that stand for it, if any are given.

    Raises:
        ConfigError: A name is empty or occurs twice, or a value is none.
    """
    found: dict[str, list[str]] = {}
    for item in text.split(","):
        name, _, values = (part.strip() for part in item.partition("="))
        if not name or name in found:
            what = "a name is empty" if not name else f"{name!r} occurs twice"
            raise ConfigError(what, where=f"--classes {text!r}", fix=_SYNTAX)
        keys = [canonical(value.strip()) for value in values.split("|")] if values else []
        if None in keys or "*" in keys:
            what = f"{values!r} is no pixel value from 0 to 65535 and no colour #rrggbb"
            raise ConfigError(what, where=f"--classes {text!r}", fix=_SYNTAX)
        found[name] = [key for key in keys if key is not None]
    return found


def classes_beside(folder: Path) -> dict[str, list[str]]:
    """Classes of a file that tools leave in a data set; none if there is none that can be read.

    labelmap.txt (CVAT: `name:r,g,b::`), classes.json (by value, or a list), classes.txt (a name a
    line).
    """
    for name, read in (
        ("labelmap.txt", _of_label_map),
        ("classes.json", _of_json),
        ("classes.txt", _of_lines),
    ):
        for path in (folder / name, folder.parent / name):
            if path.is_file():
                try:
                    return read(path.read_text(encoding="utf-8"))
                except (OSError, ValueError, TypeError, AttributeError):
                    continue
    return {}


def assigned(asked: Mapping[str, Sequence[str]], seen: LabelsSeen) -> Classes:
    """Finds out which values of label files stand for which class.

    Args:
        asked: By class name, the values or colours that are known to stand for it.
        seen: What the label files hold.

    Raises:
        ConfigError: That cannot be told.
    """
    ignored = [name for name in asked if _IGNORED_NAMES.search(name)]
    plain = tuple(name for name in asked if name not in ignored)
    if any(asked.values()):
        return _as_written(asked, plain, ignored, seen)
    names = plain if BACKGROUND in plain else (BACKGROUND, *plain)
    if not seen.count:
        return Classes(names)
    if seen.in_colors:
        return _of_colors(names, seen)
    return _of_numbers(names, seen)


def _as_written(
    asked: Mapping[str, Sequence[str]],
    plain: tuple[str, ...],
    ignored: Sequence[str],
    seen: LabelsSeen,
) -> Classes:
    scheme = {value: name for name in plain for value in asked[name]}
    scheme |= {value: IGNORED for name in ignored for value in asked[name]}
    names, remarks = plain, []
    others = [value for value in seen.shares if value not in scheme]
    if (zero := "#000000" if seen.in_colors else "0") in others and BACKGROUND not in names:
        others.remove(zero)
        names = (BACKGROUND, *names)
        scheme = {zero: BACKGROUND, **scheme}
    if others:
        remarks.append(f"ignored, as no class has them: {', '.join(others)}")
        scheme |= dict.fromkeys(others, IGNORED)
    if absent := [name for name in plain if not {*asked[name]} & seen.shares.keys()]:
        remarks.append(f"in no label file that was looked at: {', '.join(absent)}")
    by_id = {str(number): name for number, name in enumerate(names)}
    is_plain = {k: v for k, v in scheme.items() if k != str(IGNORE) or v != IGNORED} == by_id
    return Classes(names, {} if is_plain else scheme, tuple(remarks))


def _of_numbers(names: tuple[str, ...], seen: LabelsSeen) -> Classes:
    """Values are class ids, or stand for the classes in ascending order."""
    numbers = [number for number in seen.numbers if number != IGNORE]
    own = names[1:]
    if numbers == list(range(len(own))) and len(own) > 1 and names[0] == BACKGROUND:
        assumed = f"{len(own)} values for {len(own)} classes, so 0 is {own[0]} and nothing is "
        return Classes(own, {}, (f"{assumed}background",))
    is_binary = numbers == [0] and IGNORE in seen.numbers  # 0 and 255: black and white
    if numbers and numbers[-1] < len(names) and not is_binary:
        return Classes(names)
    foreground = [number for number in seen.numbers if number]
    if len(foreground) != len(own):
        foreground = [number for number in foreground if number != IGNORE]
    if len(foreground) == len(own):
        scheme = {"0": names[0], **{str(v): n for v, n in zip(foreground, own, strict=True)}}
        if IGNORE in seen.numbers and IGNORE not in foreground:
            scheme[str(IGNORE)] = IGNORED
        return Classes(names, scheme, ("values are taken in the order of the classes",))
    raise _unknown(names, seen)


def _of_colors(names: tuple[str, ...], seen: LabelsSeen) -> Classes:
    """One class has the one colour that is not black or white; more cannot be told apart."""
    colors = [color for color in seen.shares if color not in ("#000000", *_IGNORED_COLORS)]
    if len(names) != 2 or len(colors) != 1:
        raise _unknown(names, seen)
    scheme = {"#000000": names[0], colors[0]: names[1]}
    scheme |= {color: IGNORED for color in _IGNORED_COLORS if color in seen.shares}
    return Classes(names, scheme)


def _unknown(names: Sequence[str], seen: LabelsSeen) -> ConfigError:
    kind = "colours" if seen.in_colors else "values"
    shown = ", ".join([*seen.shares][:20]) + (" ..." if len(seen.shares) > 20 else "")
    what = f"{seen.count} label files hold the {kind} {shown}; which stand for which class?"
    pairs = zip(names[1:], [*seen.shares][1:], strict=False)
    example = ", ".join(f"{name}={value}" for name, value in pairs)
    fix = f'say it: --classes "{example}"; what you leave out is ignored'
    return ConfigError(what, where=f"classes {', '.join(names)}", fix=fix)


def _of_label_map(text: str) -> dict[str, list[str]]:
    found = {}
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            name, color, *_ = line.split(":")
            red, green, blue = (int(part) for part in color.split(","))
            found[name.strip()] = [f"#{red:02x}{green:02x}{blue:02x}"]
    return found


def _of_json(text: str) -> dict[str, list[str]]:
    content = json.loads(text)
    if isinstance(content, list):
        return {str(name): [] for name in content}
    pairs = [(canonical(str(value)), str(name)) for value, name in content.items()]
    return {name: [value] for value, name in pairs if value is not None}


def _of_lines(text: str) -> dict[str, list[str]]:
    return {line.strip(): [] for line in text.splitlines() if line.strip()}
