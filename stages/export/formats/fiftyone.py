"""FiftyOne: data and labels, as fiftyone.types.ImageSegmentationDirectory; see load.py."""

from __future__ import annotations

from collections.abc import Iterable

from stages.export.formats._png_folders import PngFolders
from stages.export.formats.base import Record


class FiftyOne(PngFolders):
    """Writes this format."""

    images, masks = "data", "labels"

    def finish(self, records: Iterable[Record]) -> None:
        """See `Format.finish`."""
        del records  # FiftyOne lists the folders
        targets = dict(enumerate(self.vocabulary.class_names))
        lines = [
            "# Made by Maskmill. Run it in this folder: python load.py",
            "import fiftyone as fo",
            "",
            "dataset = fo.Dataset.from_dir(",
            '    dataset_dir=".",',
            "    dataset_type=fo.types.ImageSegmentationDirectory,",
            "    force_grayscale=False,",
            ")",
            f"dataset.default_mask_targets = {targets!r}",
            "dataset.save()",
            "fo.launch_app(dataset).wait()",
        ]
        self.write_lines("load.py", lines)
