"""COCO's panoptic annotations: a JSON file, and a PNG of segment ids an image."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from pipeline.engine.findings import Findings
from pipeline.errors import DataError
from pipeline.files import file_stamps
from stages.ingest.annotations.coco_document import CocoDocument, CocoImage, id_of, text_of
from stages.ingest.annotations.shapes import AnnotatedImage, Shape, refuse

_LARGEST = 2**24


def read(file: str, folder: str, findings: Findings) -> Iterator[AnnotatedImage]:
    """Reads the images of a file, in its order; opens no PNG.

    Args:
        file: Path or address of the JSON file.
        folder: Folder of the PNG files.
        findings: Gets what is wrong with single images and segments.

    Yields:
        Each image; one without an annotation was not annotated.

    Raises:
        DataError: The file cannot be read, or is none of this format.
    """
    document = CocoDocument(file, findings)
    missing = []
    for image in document.images():
        found = None
        with findings.collecting():
            found = _image(image, folder, document, findings)
        if found is not None:
            yield found
            if found.segments is not None and file_stamps.stamp(found.segments) is None:
                missing.append(found.segments)
    if missing:
        count = f"{len(missing):,} PNG file{'s'[: len(missing) != 1]} of segments"
        what = f"{count} missing, first: {missing[0]}"
        fix = "set `segments` to the folder that holds them"
        findings.add(DataError(what, where=file, fix=fix))


def segment_ids(content: bytes) -> npt.NDArray[np.int32]:
    """(H, W) segment ids of a PNG: red + 256 green + 65536 blue.

    Raises:
        UnreadableImageError: It cannot be decoded.
    """
    from pipeline.images.label_files import decode_labels

    values = decode_labels(content).astype(np.int32)
    return values if values.ndim == 2 else values @ np.array([1, 256, 65536], np.int32)


def _image(
    image: CocoImage, folder: str, document: CocoDocument, findings: Findings
) -> AnnotatedImage:
    if not image.annotations:
        return AnnotatedImage(image.name, image.width, image.height, None, where=image.where)
    if image.annotations[1:]:
        fix = "keep one, with all segments in `segments_info`"
        refuse("the image has a second annotation", image.annotations[1].where, fix)
    [(value, where)] = image.annotations
    name = text_of(value, "file_name", where)
    segments = value.get("segments_info")
    if not isinstance(segments, list):
        fix = "name a panoptic file; a file of instances is read by the source `coco_json`"
        refuse("no `segments_info`", where, fix)
    shapes = []
    for number, segment in enumerate(segments):
        with findings.collecting():
            place = f"{where}.segments_info[{number}]"
            own_id = id_of(segment, "id", place)
            if not isinstance(own_id, int) or not 0 < own_id < _LARGEST:
                refuse(f"the id {own_id!r}", place, f"write a number from 1 to {_LARGEST - 1}")
            category = document.category(segment, place)
            shapes.append(Shape(None if segment.get("iscrowd") else category, segment=own_id))
    return AnnotatedImage(
        image.name,
        image.width,
        image.height,
        tuple(shapes),
        segments=f"{folder}/{name}",
        where=image.where,
    )
