"""COCO panoptic: a PNG of segment ids for each image; a class is one segment, "stuff"."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from PIL import Image

from pipeline.config.vocabulary import IGNORE
from pipeline.images.overlay import encoded
from stages.export.formats._coco import CocoFormat
from stages.export.formats.base import Record
from stages.export.sample import Sample


class CocoPanoptic(CocoFormat):
    """Writes this format."""

    index = "panoptic_{split}.json"

    def add(self, sample: Sample) -> Record:
        """See `Format.add`; the id of a segment is its class id + 1, and 0 is ignored."""
        segments, ids = [], np.zeros(sample.mask.shape, np.uint8)
        for class_id in np.unique(sample.mask).tolist():
            if class_id == IGNORE:
                continue
            pixels = sample.mask == class_id
            ids[pixels] = class_id + 1
            rows, columns = np.nonzero(pixels)
            left, top = int(columns.min()), int(rows.min())
            segments.append(
                {
                    "id": class_id + 1,
                    "category_id": class_id + 1,
                    "area": int(pixels.sum()),
                    "bbox": [left, top, int(columns.max()) - left + 1, int(rows.max()) - top + 1],
                    "iscrowd": 0,
                }
            )
        rgb = np.zeros((*ids.shape, 3), np.uint8)  # id = R + 256 G + 256^2 B
        rgb[..., 0] = ids
        name = f"{sample.name}.png"
        file = f"annotations/panoptic_{sample.split}/{name}"
        self.folder.write(file, encoded(Image.fromarray(rgb)))
        return {**self.described(sample, segments), "file": name}

    def categories(self) -> list[dict[str, Any]]:
        """All classes, numbered from 1."""
        palette = self.vocabulary.palette.tolist()
        return [
            {"id": number + 1, "name": name, "isthing": 0, "color": palette[number]}
            for number, name in enumerate(self.vocabulary.class_names)
        ]

    def numbered(self, records: Iterable[Record], split: str) -> Iterator[dict[str, Any]]:
        """An annotation for each image, with its segments."""
        own = (record for record in records if record["split"] == split)
        for number, record in enumerate(own, start=1):
            yield {
                "image_id": number,
                "file_name": record["file"],
                "segments_info": record["annotations"],
            }
