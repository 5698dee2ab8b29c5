"""Images and palette PNGs of class ids in two folders, 255 = ignore; names in classes.json."""

from __future__ import annotations

from collections.abc import Iterable

from stages.export.formats._png_folders import PngFolders
from stages.export.formats.base import Record


class Png(PngFolders):
    """Writes this format."""

    images, masks = "images", "masks"

    def finish(self, records: Iterable[Record]) -> None:
        """See `Format.finish`."""
        names = self.vocabulary.class_names
        self.write_json("classes.json", {str(number): name for number, name in enumerate(names)})
        for split in ("train", "val"):
            own = (record for record in records if record["split"] == split)
            self.write_lines(f"{split}.txt", (f"{each['image']} {each['mask']}" for each in own))
