"""Images with COCO's panoptic annotations: a JSON file, and folders of PNG files and of images."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from pipeline.engine.findings import Findings
from pipeline.errors import DataError
from pipeline.files import locations
from pipeline.files.locations import Location
from stages.ingest.annotations import coco_panoptic
from stages.ingest.annotations.shapes import AnnotatedImage
from stages.ingest.containment import Root
from stages.ingest.sources._annotation_file import AnnotationFileConfig, AnnotationFileSource
from stages.ingest.wrong_source import missing_folder


class CocoPanopticConfig(AnnotationFileConfig):
    """Keys of a source of panoptic annotations; without `rest`, unlabeled pixels are ignored."""

    segments: Location
    """Folder, or address s3://bucket/prefix, of the PNG files of segment ids."""


class CocoPanopticSource(AnnotationFileSource):
    """Images of a panoptic COCO file, things and stuff; crowd regions are ignored."""

    Config = CocoPanopticConfig
    version = 1
    default_rest = "ignore"
    config: CocoPanopticConfig

    @property
    def paths(self) -> Mapping[str, Path]:
        """See `Source.paths`."""
        segments = self.config.segments
        return {**super().paths, str(segments): locations.join(self.data, segments)}

    def annotated(self, findings: Findings, remarks: Counter[str]) -> Iterator[AnnotatedImage]:
        """See `AnnotationSource.annotated`."""
        root = self._segments
        for image in coco_panoptic.read(self.file, root.folder, findings):
            if image.segments is not None and (problem := root.problem(image.segments)):
                fix = "write a name in the folder of the segments"
                findings.add(DataError(problem, where=image.segments, fix=fix))
            else:
                yield image

    def inputs(self) -> Sequence[str]:
        """See `AnnotationSource.inputs`; the file, and all PNG files."""
        folder = locations.join(self.data, self.config.segments)
        if not folder.is_dir():
            raise missing_folder(folder, f"{self.where}.segments: {folder}")
        files = (path for path, problem in self._segments.files() if problem is None)
        return [self.file, *sorted(path for path in files if path.endswith(".png"))]

    @cached_property
    def _segments(self) -> Root:
        folder = locations.join(self.data, self.config.segments)
        return Root(folder, follow_links=self.config.follow_links)
