"""Sources of one annotation file that lists its images, and of a folder where these are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.files import locations
from pipeline.files.locations import Location
from stages.ingest.sources._annotations import AnnotationConfig, AnnotationSource


class AnnotationFileConfig(AnnotationConfig):
    """Keys of a source of one annotation file."""

    annotations: Location
    """The annotation file, or its address s3://bucket/key. A relative path starts at `data`."""
    images: Location
    """Folder, or address s3://bucket/prefix, that the names of the images start from."""


class AnnotationFileSource(AnnotationSource):
    """Images that an annotation file lists, in its order."""

    config: AnnotationFileConfig

    @property
    def folder(self) -> Path:
        """See `AnnotationSource.folder`."""
        return locations.join(self.data, self.config.images)

    @property
    def file(self) -> str:
        """Path or address of the annotation file."""
        return str(locations.join(self.data, self.config.annotations))

    @property
    def paths(self) -> Mapping[str, Path]:
        """See `Source.paths`."""
        keys = (self.config.images, self.config.annotations)
        return {str(path): locations.join(self.data, path) for path in keys}

    def inputs(self) -> Sequence[str]:
        """See `AnnotationSource.inputs`."""
        return [self.file]
