"""Base of formats that are folders of images and of palette PNGs."""

from __future__ import annotations

from stages.export.formats.base import Format, Record
from stages.export.sample import Sample, mask_png


class PngFolders(Format):
    """Writes an image and a mask for each sample; subclasses name their places and write an index.

    Attributes:
        images: Folder of the images; {split} is replaced by the split.
        masks: Folder of the masks.
        only_png: Whether all images become PNGs, for tools that want one ending.
    """

    images: str
    masks: str
    only_png = False

    def add(self, sample: Sample) -> Record:
        """See `Format.add`."""
        ending, content = (".png", sample.png) if self.only_png else sample.file
        image = f"{self.images.format(split=sample.split)}/{sample.name}{ending}"
        mask = f"{self.masks.format(split=sample.split)}/{sample.name}.png"
        self.folder.write(image, content)
        self.folder.write(mask, mask_png(sample.mask, self.vocabulary.palette))
        return {"image": image, "mask": mask, "split": sample.split}
