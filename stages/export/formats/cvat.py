"""CVAT for images 1.1: annotations.xml with masks as run lengths; no background."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from xml.sax.saxutils import quoteattr

import numpy as np

from stages.export.formats.base import Format, Record
from stages.export.sample import Sample
from stages.export.shapes import Bools, regions


class Cvat(Format):
    """Writes this format."""

    has_ignore = False

    def add(self, sample: Sample) -> Record:
        """See `Format.add`."""
        ending, content = sample.file
        image = f"images/{sample.split}/{sample.name}{ending}"
        self.folder.write(image, content)
        masks = [
            f'<mask label={quoteattr(self.vocabulary.class_names[region.class_id])} source="auto" '
            f'occluded="0" rle="{_run_lengths(region.pixels)}" left="{region.left}" '
            f'top="{region.top}" width="{region.pixels.shape[1]}" '
            f'height="{region.pixels.shape[0]}" z_order="0"></mask>'
            for region in regions(sample.mask, self.background)
        ]
        height, width = sample.mask.shape
        name = image.removeprefix("images/")
        return {"name": name, "size": [width, height], "masks": masks}

    def finish(self, records: Iterable[Record]) -> None:
        """See `Format.finish`."""
        self.write_lines("annotations.xml", self._lines(records))

    def _lines(self, records: Iterable[Record]) -> Iterator[str]:
        yield '<?xml version="1.0" encoding="utf-8"?>'
        yield "<annotations><version>1.1</version><meta><task><labels>"
        palette = self.vocabulary.palette
        for class_id, name in self.objects.items():
            color = "#" + palette[class_id].tobytes().hex()
            text = quoteattr(name)[1:-1]
            yield f"<label><name>{text}</name><color>{color}</color><type>any</type></label>"
        yield "</labels></task></meta>"
        for number, record in enumerate(records):
            width, height = record["size"]
            yield (
                f'<image id="{number}" name={quoteattr(record["name"])} '
                f'width="{width}" height="{height}">'
            )
            yield from record["masks"]
            yield "</image>"
        yield "</annotations>"


def _run_lengths(pixels: Bools) -> str:
    """Lengths of runs, row by row, the first one of pixels that are not in the mask."""
    runs = [(value, sum(1 for _ in own)) for value, own in groupby(np.ravel(pixels).tolist())]
    counts = [count for _, count in runs]
    return ", ".join(map(str, counts if not runs[0][0] else [0, *counts]))
