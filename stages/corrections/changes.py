"""Which masks were corrected: those that differ from what was exported."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from pipeline.config import components
from pipeline.config.config import Config
from pipeline.config.vocabulary import IGNORE
from pipeline.errors import MaskmillError
from stages.corrections.exported import Exported
from stages.export.export import FAMILY
from stages.export.formats.base import Format, background_of
from stages.export.labeled_images import Item
from stages.export.run_labels import RunLabels

Bytes = npt.NDArray[np.uint8]
_NEIGHBOURS = np.ones((3, 3), dtype=bool)


class FormerLabels:
    """The labels as they were exported.

    Args:
        config: The run.
        exported: The export.
    """

    def __init__(self, config: Config, exported: Exported) -> None:
        facts = exported.facts
        labeler, roles = facts["labeler"], facts["roles"]
        self._labels = RunLabels(config, labeler, roles, facts["min_confidence"], facts["split"])
        self._items: Mapping[str, Item] = {
            item.name: item for _, items in self._labels.shards() for item in items
        }
        self._rows = exported.rows
        self._format = components.find(FAMILY, exported.format, Format)  # type: ignore[type-abstract]

    def is_corrected(self, name: str, mask: Bytes) -> bool:
        """Whether a mask differs from the exported one; so it does if that is no longer there.

        Of polygons, which tools fill differently, a change at the borders of regions does not
        count.

        Args:
            name: The image.
            mask: (H, W) uint8.
        """
        item = self._items.get(name)
        if item is None or (item.row["fingerprint"] or "") != self._rows[name]["fingerprint"]:
            return True
        try:
            former = self._labels.mask(item)
        except MaskmillError:
            return True
        if not self._format.has_ignore:
            former = np.where(former == IGNORE, background_of(self._labels.vocabulary), former)
        if former.shape != mask.shape:
            return True
        differs = former != mask
        if not self._format.is_exact:
            differs &= ~_border(former)
        return bool(differs.any())


def _border(mask: Bytes) -> npt.NDArray[np.bool_]:
    """The pixels beside a pixel of another value, or at the edge of the image."""
    low = ndimage.grey_erosion(mask, footprint=_NEIGHBOURS)
    high = ndimage.grey_dilation(mask, footprint=_NEIGHBOURS)
    found = np.asarray(low != high)
    found[[0, -1]] = found[:, [0, -1]] = True
    return found
