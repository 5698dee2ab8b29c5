"""YOLO segmentation: images, labels with a polygon a line, data.yaml; no background."""

from __future__ import annotations

import json
from collections.abc import Iterable

from stages.export.formats.base import Format, Record
from stages.export.sample import Sample
from stages.export.shapes import polygon, regions

_INSIDE = 0.25
"""Where in its pixel a point lies: tools that cut to whole pixels, or round, find the pixel."""


class Yolo(Format):
    """Writes this format."""

    has_ignore = False
    is_exact = False
    needs = "cv2"

    def add(self, sample: Sample) -> Record:
        """See `Format.add`; the points lie in the border pixels, as shares of the sides."""
        ending, content = sample.file
        self.folder.write(f"images/{sample.split}/{sample.name}{ending}", content)
        height, width = sample.mask.shape
        numbers = {class_id: number for number, class_id in enumerate(self.objects)}
        lines = []
        for region in regions(sample.mask, self.background):
            points = polygon(region)
            if len(points) < 3:  # readers want three points
                points = points[[0, 0, -1, -1]]
            shares = ((points + _INSIDE) / (width, height)).reshape(-1)
            numbers_of = " ".join(f"{share:.6f}" for share in shares)
            lines.append(f"{numbers[region.class_id]} {numbers_of}\n")
        self.folder.write(f"labels/{sample.split}/{sample.name}.txt", "".join(lines).encode())
        return {"split": sample.split}

    def finish(self, records: Iterable[Record]) -> None:
        """See `Format.finish`."""
        splits = {record["split"] for record in records}
        val = "images/val" if "val" in splits else "images/train"  # the key must be there
        names = [
            f"  {number}: {json.dumps(name, ensure_ascii=False)}"
            for number, name in enumerate(self.objects.values())
        ]
        lines = ["# Made by Maskmill.", "path: .", "train: images/train", f"val: {val}", "names:"]
        self.write_lines("data.yaml", [*lines, *names])
