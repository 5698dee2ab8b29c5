"""Images with annotations from Label Studio: its JSON export, and a folder of images."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property

import pyarrow as pa

from pipeline.engine.findings import Findings
from stages.ingest.annotations import label_studio
from stages.ingest.annotations.shapes import AnnotatedImage
from stages.ingest.containment import Root
from stages.ingest.file_kind import PassedOver
from stages.ingest.image_files import image_files
from stages.ingest.sources._annotation_file import AnnotationFileConfig, AnnotationFileSource


class LabelStudioSource(AnnotationFileSource):
    """Images of tasks; a task that nobody has annotated has no label file."""

    Config = AnnotationFileConfig
    version = 1

    def annotated(self, findings: Findings, remarks: Counter[str]) -> Iterator[AnnotatedImage]:
        """See `AnnotationSource.annotated`; a URL is the file with the end of its path."""
        for image in label_studio.read(self.file, findings, remarks):
            found = (name for name in label_studio.candidates(image.name) if name in self._present)
            yield replace(image, name=next(found, image.name))

    def present(self) -> Sequence[str]:
        """See `AnnotationSource.present`."""
        return sorted(self._present)

    def list(self) -> pa.Table:
        """See `Source.list`; a remark counts the images of no task."""
        found = super().list()
        used = {self.inside(address) for address in found["image"].to_pylist()}
        if others := self._present - used:
            count = f"{len(others):,} image{'s'[: len(others) != 1]}"
            self.remarks.append(f"{count} of no annotated task passed over")
        return found

    @cached_property
    def _present(self) -> set[str]:
        """The image files, by path below the folder."""
        root = Root(self.folder, follow_links=self.config.follow_links)
        return {name for name, _, _ in image_files(root, PassedOver())}
