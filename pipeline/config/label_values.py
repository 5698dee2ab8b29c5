"""Pixel values and colours of label files, and the class ids that they stand for.

A label scheme is resolved to `Targets`: a pixel value ("7"), a colour ("#0a0b0c") or "*" (all
others) to a class id.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

IGNORE = 255
"""Value of a mask pixel without a class or without a label."""
OTHERS = "*"
"""Key of all values that a scheme does not name."""
TABLE_SIZE = 65536
"""Number of pixel values that a scheme can name."""
_IGNORED_COLORS = ("#000000", "#ffffff", "#e0e0c0")
"""Black, white, and the border in the label files of Pascal VOC."""
_UNKNOWN = 256

Targets = Mapping[str, int]


def canonical(key: str) -> str | None:
    """The one spelling of a pixel value, a colour or "*"; None if the key is none of them."""
    if re.fullmatch("[0-9]{1,9}", key):
        return str(int(key)) if int(key) < TABLE_SIZE else None
    return key.lower() if key == OTHERS or re.fullmatch("#[0-9a-fA-F]{6}", key) else None


def class_color_targets(colors: Sequence[str]) -> dict[str, int]:
    """The targets of label files in the colours of the classes.

    Black, white and VOC's border are ignore where no class has them. A colour of two classes names
    none.

    Args:
        colors: The colour of each class, #rrggbb, in the order of class ids.
    """
    lower = [color.lower() for color in colors]
    counts = Counter(lower)
    own = {color: class_id for class_id, color in enumerate(lower) if counts[color] == 1}
    ignored = [color for color in _IGNORED_COLORS if color not in counts]
    return {**dict.fromkeys(ignored, IGNORE), **own}


def names_colors(targets: Targets) -> bool:
    """Whether a scheme is of colours, maybe next to pixel values."""
    return any(key.startswith("#") for key in targets)


def is_renumbered(
    labels: npt.NDArray[np.integer], palette: Sequence[tuple[int, int, int]], colors: Sequence[str]
) -> bool:
    """Whether a palette file shows only classes' colours and ignored ones, at other numbers.

    Args:
        labels: (H, W) numbers in the palette; 255 is ignored whatever its colour.
        palette: Its RGB colours.
        colors: The colour of each class, #rrggbb, in the order of class ids.
    """
    used = np.unique(labels)
    used = used[used != IGNORE]  # which no palette has a colour for that means anything
    if not len(used) or int(used[-1]) >= len(palette):
        return False
    ids = class_color_targets(colors)
    shown = [ids.get("#{:02x}{:02x}{:02x}".format(*palette[number])) for number in used]
    if None in shown or len({*shown}) < len(shown):
        return False
    pairs = zip(shown, used.tolist(), strict=True)
    return any(class_id not in (IGNORE, number) for class_id, number in pairs)


def is_in_colors(labels: npt.NDArray[np.integer], *, ids: Targets, colors: Targets) -> bool:
    """Whether a file of colours (H, W, 3) is in the colours of the classes.

    It is not if its channels are equal and hold class ids.

    Args:
        labels: The colours.
        ids: The scheme of class ids.
        colors: The scheme of the classes' colours.

    Raises:
        ValueError: It can be read in both ways, with different results.
    """
    if not _is_grey(labels):
        return True
    (by_id, no_ids), (by_color, no_colors) = (to_class_ids(labels, each) for each in (ids, colors))
    if no_colors or (by_color == IGNORE).all():
        return False
    if not no_ids and (by_id != by_color).any():
        raise ValueError("its greys can be class ids, or colours of classes")
    return bool(no_ids)


def _is_grey(labels: npt.NDArray[np.integer]) -> bool:
    """Whether a file of colours (H, W, 3) holds only grey: its channels are equal."""
    first = labels[..., 0]
    return bool((first == labels[..., 1]).all() and (first == labels[..., 2]).all())


def to_class_ids(
    labels: npt.NDArray[np.integer], targets: Targets
) -> tuple[npt.NDArray[np.uint8], list[str]]:
    """Converts the pixels of a label file to class ids.

    Args:
        labels: (H, W) pixel values, or (H, W, 3) uint8 colours, which are pixel values if the
            scheme names no colours and the three channels are equal.
        targets: The scheme.

    Returns:
        (H, W) uint8 mask, 255 = ignore, and as text the values or colours that are not in the
        scheme (their pixels are 255 too). A scheme of values has no "others" among colours, and a
        scheme of colours none among values.
    """
    if labels.ndim == 3 and not names_colors(targets) and _is_grey(labels):
        labels = labels[..., 0]
    if is_color := labels.ndim == 3:
        labels = labels.astype(np.int32) @ np.array([65536, 256, 1], np.int32)
        known = {int(key[1:], 16): id_ for key, id_ in targets.items() if key.startswith("#")}
    else:
        known = {int(key): id_ for key, id_ in targets.items() if key.isdecimal()}
    is_of_its_kind = bool(known) or targets.keys() == {OTHERS}
    others = targets.get(OTHERS, _UNKNOWN) if is_of_its_kind else _UNKNOWN
    if labels.size and not is_color and labels.min() >= 0 and labels.max() < TABLE_SIZE:
        table = np.full(TABLE_SIZE, others, np.uint16)
        table[list(known)] = list(known.values())
        ids = table[labels]
    else:
        values, inverse = np.unique(labels, return_inverse=True)
        found = [known.get(int(value), others) for value in values]
        ids = np.array(found, np.uint16)[inverse].reshape(labels.shape)
    strangers = np.unique(labels[ids == _UNKNOWN])
    unknown = [f"#{value:06x}" if is_color else str(value) for value in strangers]
    return np.where(ids == _UNKNOWN, IGNORE, ids).astype(np.uint8), unknown
