"""Images with COCO's instance annotations: one JSON file, and a folder of images."""

from collections import Counter
from collections.abc import Iterator

from pipeline.engine.findings import Findings
from stages.ingest.annotations import coco
from stages.ingest.annotations.shapes import AnnotatedImage
from stages.ingest.sources._annotation_file import AnnotationFileConfig, AnnotationFileSource


class CocoJsonSource(AnnotationFileSource):
    """Images of a COCO file; crowd regions are ignored, and smaller shapes lie over larger ones."""

    Config = AnnotationFileConfig
    version = 1

    def annotated(self, findings: Findings, remarks: Counter[str]) -> Iterator[AnnotatedImage]:
        """See `AnnotationSource.annotated`."""
        yield from coco.read(self.file, findings, remarks)
