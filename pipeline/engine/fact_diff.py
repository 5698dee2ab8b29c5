"""What differs between recorded facts and present ones, in words: ``threshold 0.5 -> 0.6``."""

from collections.abc import Sequence
from itertools import takewhile

from pydantic import JsonValue

from pipeline.config.config_section import Facts

_SHOWN = 60
"""Characters of a value."""


def differences(recorded: Facts, present: Facts) -> tuple[str, ...]:
    """One line a key that differs, in the order of keys.

    Inputs are digests, so only that they changed is worth telling.
    """
    if recorded == present:  # as a rule, and of many units quicker to see as a whole
        return ()
    lines = []
    for key in sorted(recorded.keys() | present.keys()):
        old, new = recorded.get(key), present.get(key)
        if old == new:
            continue
        if key.startswith("inputs."):
            lines.append(f"{key.removeprefix('inputs.')} changed")
        elif isinstance(old, dict) and isinstance(new, dict):
            lines += [f"{key}.{line}" for line in differences(old, new)]
        else:
            lines.append(f"{key} {_shown(old, new)} -> {_shown(new, old)}")
    return tuple(lines)


def _shown(value: JsonValue, other: JsonValue) -> str:
    """A value as short text; of lists and of long texts only from where they part."""
    text = "none" if value is None else str(value)
    if isinstance(value, bool):
        text = text.lower()  # as the config spells it
    if isinstance(value, list) and isinstance(other, list):
        text = f"[..., {str(value[same:])[1:]}" if (same := _num_equal(value, other)) else text
    elif isinstance(value, str) and isinstance(other, str) and len(text) > _SHOWN:
        same = _num_equal(value, other)
        text = f"...{text[same - _SHOWN // 2 :]}" if same > _SHOWN // 2 else text
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def _num_equal(value: Sequence[object], other: Sequence[object]) -> int:
    """How many items two sequences begin with alike."""
    pairs = zip(value, other, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
