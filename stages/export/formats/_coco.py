"""Base of COCO's formats: a JSON file of images and annotations for each split."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from stages.export.formats._json_lines import json_lines
from stages.export.formats.base import Format, Record
from stages.export.sample import Sample


class CocoFormat(Format):
    """Subclasses describe the annotations of an image."""

    index: str
    """Name of the JSON file; {split} is replaced by the split."""

    def described(self, sample: Sample, annotations: list[dict[str, Any]]) -> Record:
        """Writes the image, and returns its record."""
        ending, content = sample.file
        image = f"images/{sample.split}/{sample.name}{ending}"
        self.folder.write(image, content)
        height, width = sample.mask.shape
        entry = {"file_name": f"{sample.name}{ending}", "width": width, "height": height}
        return {"split": sample.split, "image": entry, "annotations": annotations}

    def finish(self, records: Iterable[Record]) -> None:
        """See `Format.finish`."""
        for split in sorted({record["split"] for record in records}):
            lists = {
                "categories": self.categories(),
                "images": _images(records, split),
                "annotations": self.numbered(records, split),
            }
            self.write_lines(f"annotations/{self.index.format(split=split)}", json_lines(lists))

    def categories(self) -> list[dict[str, Any]]:
        """COCO's categories; their ids are the class ids."""
        return [{"id": class_id, "name": name} for class_id, name in self.objects.items()]

    def numbered(self, records: Iterable[Record], split: str) -> Iterator[dict[str, Any]]:
        """The annotations of a split, with ids."""
        count = 0
        for number, record in enumerate(_own(records, split), start=1):
            for annotation in record["annotations"]:
                count += 1
                yield {"id": count, "image_id": number, **annotation}


def _own(records: Iterable[Record], split: str) -> Iterator[Record]:
    return (record for record in records if record["split"] == split)


def _images(records: Iterable[Record], split: str) -> Iterator[dict[str, Any]]:
    for number, record in enumerate(_own(records, split), start=1):
        yield {"id": number, **record["image"]}
