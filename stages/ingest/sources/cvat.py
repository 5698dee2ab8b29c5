"""Images with annotations from CVAT: the file "CVAT for images 1.1", and a folder of images."""

from collections import Counter
from collections.abc import Iterator

from pipeline.engine.findings import Findings
from stages.ingest.annotations import cvat
from stages.ingest.annotations.shapes import AnnotatedImage
from stages.ingest.sources._annotation_file import AnnotationFileConfig, AnnotationFileSource


class CvatSource(AnnotationFileSource):
    """Images of a CVAT export; shapes of a higher `z_order` lie over others."""

    Config = AnnotationFileConfig
    version = 1

    def annotated(self, findings: Findings, remarks: Counter[str]) -> Iterator[AnnotatedImage]:
        """See `AnnotationSource.annotated`."""
        yield from cvat.read(self.file, findings, remarks)
