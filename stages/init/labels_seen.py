"""What label files hold: pixel values or colours."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.images import images
from pipeline.images.faults import UnreadableImageError
from pipeline.images.label_files import decode_labels

_LOOKED_AT = 200
"""Label files that are opened, evenly chosen; more tell little and take long."""
_MOST_COLORS = 512
"""Colours of a file above which it is a photo or was blurred, and no label file."""


@dataclass(frozen=True)
class LabelsSeen:
    """The values of label files.

    Attributes:
        shares: By value ("7") or colour ("#rrggbb"), ascending: its share of the pixels, of each
            file alike.
        count: Number of files that were read.
        problems: What is wrong with the others, by path.
        short_side_px: Median short side of the files; 512 where there is none.
    """

    shares: dict[str, float]
    count: int
    problems: dict[str, str]
    short_side_px: int = 512

    @property
    def in_colors(self) -> bool:
        """Whether they hold colours."""
        return any(value.startswith("#") for value in self.shares)

    @property
    def numbers(self) -> list[int]:
        """The pixel values, ascending; none if they are colours."""
        return [] if self.in_colors else sorted(int(value) for value in self.shares)


def look_at(paths: Sequence[Path]) -> LabelsSeen:
    """Reads some of these label files."""
    step = max(1, len(paths) // _LOOKED_AT)
    found: defaultdict[str, float] = defaultdict(float)
    problems: dict[str, str] = {}
    sides = []
    for path in paths[::step]:
        try:
            labels = decode_labels(images.read_bytes(str(path)))
        except UnreadableImageError as error:
            problems[str(path)] = str(error)
            continue
        shares = _shares(labels)
        if len(shares) > _MOST_COLORS:
            problems[str(path)] = f"it has {len(shares)} colours: a picture, no label file"
            continue
        sides.append(min(labels.shape[:2]))
        for value, share in shares.items():
            found[value] += share
    order = sorted(found, key=lambda value: (len(value), value))
    by_value = {value: found[value] / len(sides) for value in order}
    side_px = round(statistics.median(sides)) if sides else LabelsSeen.short_side_px
    return LabelsSeen(by_value, len(sides), problems, side_px)


def _shares(labels: npt.NDArray[np.integer]) -> dict[str, float]:
    """The share of each value of pixel values (H, W), or of each colour of (H, W, 3)."""
    form = "{}"
    if labels.ndim == 3:
        red, green, blue = (labels[..., channel].astype(np.int64) for channel in range(3))
        is_grey = (red == green).all() and (green == blue).all()
        labels = red if is_grey else (red << 16) + (green << 8) + blue
        form = "{}" if is_grey else "#{:06x}"
    values, counts = np.unique(labels, return_counts=True)
    shares = (counts / labels.size).tolist()
    return {form.format(value): share for value, share in zip(values.tolist(), shares, strict=True)}
