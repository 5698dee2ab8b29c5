"""Labels from the label files of the images, made by people or another tool."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.config.config_section import Section
from pipeline.config.vocabulary import IGNORE
from stages.pseudolabel.labelers.base import Labeler

if TYPE_CHECKING:
    from stages.labels.pseudo_labels import PseudoLabels
    from stages.pseudolabel.labelers.base import ImageBatch


class FilesConfig(Section):
    """The labeler `files` has no keys: `ingest.sources.<name>` says where the files are."""


class Files(Labeler):
    """Copies the label file, with confidence 1."""

    Config = FilesConfig
    version = 1
    needs_label_files = True
    libraries = ("pillow",)

    def label(self, images: ImageBatch) -> PseudoLabels:
        """See `Labeler.label`."""
        import torch

        labels = ((label, (label != IGNORE).float()) for label in images.label_files)
        return images.place(labels, torch.device("cpu"))
