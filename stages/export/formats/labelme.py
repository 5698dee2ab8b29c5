"""LabelMe: a JSON file of polygons beside each image; no background."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from stages.export.formats.base import Format, Record
from stages.export.sample import Sample
from stages.export.shapes import polygon, regions


class LabelMe(Format):
    """Writes this format."""

    has_ignore = False
    is_exact = False
    needs = "cv2"

    def add(self, sample: Sample) -> Record:
        """See `Format.add`."""
        ending, content = sample.file
        self.folder.write(f"{sample.split}/{sample.name}{ending}", content)
        height, width = sample.mask.shape
        shapes: list[dict[str, Any]] = []
        for region in regions(sample.mask, self.background):
            points = polygon(region).tolist()
            shapes.append(
                {
                    "label": self.vocabulary.class_names[region.class_id],
                    "points": points if len(points) > 2 else [*points, *points, *points][:3],
                    "group_id": None,
                    "description": "",
                    "shape_type": "polygon",
                    "flags": {},
                }
            )
        described = {
            "version": "5.0.0",
            "flags": {},
            "shapes": shapes,
            "imagePath": f"{sample.name}{ending}",
            "imageData": None,
            "imageHeight": height,
            "imageWidth": width,
        }
        self.write_json(f"{sample.split}/{sample.name}.json", described)
        return {}

    def finish(self, records: Iterable[Record]) -> None:
        """See `Format.finish`: the names of labels, for `labelme --labels labels.txt`."""
        del records
        self.write_lines("labels.txt", self.objects.values())
