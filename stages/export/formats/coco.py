"""COCO instances: RLE; an object is what hangs together of a class; no background."""

from __future__ import annotations

from stages.export.formats._coco import CocoFormat
from stages.export.formats.base import Record
from stages.export.sample import Sample
from stages.export.shapes import regions, run_lengths


class Coco(CocoFormat):
    """Writes this format."""

    has_ignore = False
    index = "instances_{split}.json"

    def add(self, sample: Sample) -> Record:
        """See `Format.add`."""
        found = []
        for region in regions(sample.mask, self.background):
            height, width = region.pixels.shape
            found.append(
                {
                    "category_id": region.class_id,
                    "segmentation": run_lengths(region.whole(*sample.mask.shape)),
                    "area": int(region.pixels.sum()),
                    "bbox": [region.left, region.top, width, height],
                    "iscrowd": 0,
                }
            )
        return self.described(sample, found)
