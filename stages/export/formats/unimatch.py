"""UniMatch, SemiOVS: JPEGImages, SegmentationClass, and lists of both paths a line."""

from __future__ import annotations

from collections.abc import Iterable

from stages.export.formats._png_folders import PngFolders
from stages.export.formats.base import Record


class UniMatch(PngFolders):
    """Writes this format."""

    images, masks = "JPEGImages", "SegmentationClass"

    def finish(self, records: Iterable[Record]) -> None:
        """See `Format.finish`."""
        for split, name in (("train", "labeled.txt"), ("val", "val.txt")):
            own = (record for record in records if record["split"] == split)
            self.write_lines(f"splits/{name}", (f"{each['image']} {each['mask']}" for each in own))
        self.write_lines("splits/classes.txt", self.vocabulary.class_names)
