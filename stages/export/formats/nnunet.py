"""nnU-Net v2: imagesTr, labelsTr and dataset.json; copy it to nnUNet_raw/DatasetXXX_NAME."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from pipeline.config.vocabulary import IGNORE
from stages.export.formats.base import Format, Record
from stages.export.sample import Sample, mask_png

_FOLDERS = {"train": ("imagesTr", "labelsTr"), "val": ("imagesTs", "labelsTs")}


class NnUnet(Format):
    """Writes this format."""

    def add(self, sample: Sample) -> Record:
        """See `Format.add`."""
        images, labels = _FOLDERS[sample.split]
        mask = self._order[sample.mask]
        self.folder.write(f"{images}/{sample.name}_0000.png", sample.png)
        self.folder.write(f"{labels}/{sample.name}.png", mask_png(mask))
        return {"split": sample.split}

    def finish(self, records: Iterable[Record]) -> None:
        """See `Format.finish`."""
        labels = {"background": 0}
        labels |= {name: int(self._order[class_id]) for class_id, name in self.objects.items()}
        description = {
            "channel_names": {"0": "R", "1": "G", "2": "B"},
            "labels": {**labels, "ignore": self._ignore},
            "numTraining": sum(record["split"] == "train" for record in records),
            "file_ending": ".png",
            "overwrite_image_reader_writer": "NaturalImage2DIO",
        }
        self.write_json("dataset.json", description)

    @property
    def _order(self) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
        """(256,) uint8: nnU-Net's number of each mask value; there is a background, and it is 0."""
        order = np.zeros(256, np.uint8)
        for number, class_id in enumerate(self.objects, start=1):
            order[class_id] = number
        order[IGNORE] = self._ignore
        return order

    @property
    def _ignore(self) -> int:
        """Number of ignored pixels: the largest label."""
        return len(self.objects) + 1
