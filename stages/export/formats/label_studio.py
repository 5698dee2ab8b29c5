"""Label Studio: tasks.json with brush masks as predictions, and the labeling interface."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from xml.sax.saxutils import quoteattr

import numpy as np

from pipeline.config.vocabulary import IGNORE
from stages.export.formats._brush import encoded_brush
from stages.export.formats._json_lines import values_in_lines
from stages.export.formats.base import Format, Record
from stages.export.sample import Sample


class LabelStudio(Format):
    """Writes this format."""

    has_ignore = False

    def add(self, sample: Sample) -> Record:
        """See `Format.add`; a brush mask holds all pixels of a class."""
        ending, content = sample.file
        image = f"images/{sample.split}/{sample.name}{ending}"
        self.folder.write(image, content)
        height, width = sample.mask.shape
        result = []
        for class_id in np.unique(sample.mask).tolist():
            if class_id in (self.background, IGNORE):
                continue
            name = self.vocabulary.class_names[class_id]
            result.append(
                {
                    "id": hashlib.sha256(f"{image} {class_id}".encode()).hexdigest()[:10],
                    "type": "brushlabels",
                    "from_name": "tag",
                    "to_name": "image",
                    "original_width": width,
                    "original_height": height,
                    "image_rotation": 0,
                    "value": {
                        "format": "rle",
                        "rle": encoded_brush(sample.mask == class_id),
                        "brushlabels": [name],
                    },
                }
            )
        prediction = {"model_version": "maskmill", "result": result}
        address = f"/data/local-files/?d={image}"
        return {"data": {"image": address, "name": sample.name}, "predictions": [prediction]}

    def finish(self, records: Iterable[Record]) -> None:
        """See `Format.finish`."""
        self.write_lines("tasks.json", self._tasks(records))
        palette = self.vocabulary.palette
        labels = [
            f'    <Label value={quoteattr(name)} background="#{palette[number].tobytes().hex()}"/>'
            for number, name in self.objects.items()
        ]
        lines = [
            "<View>",
            '  <Image name="image" value="$image" zoom="true"/>',
            '  <BrushLabels name="tag" toName="image">',
            *labels,
            "  </BrushLabels>",
            "</View>",
        ]
        self.write_lines("interface.xml", lines)

    def _tasks(self, records: Iterable[Record]) -> Iterator[str]:
        yield "["
        yield from values_in_lines(records)
        yield "]"
