"""What annotations say of each image, without the shapes; kept until they or the classes change."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from pipeline.engine.findings import Findings
from pipeline.errors import DataError, together
from stages.ingest import cached_table
from stages.ingest.annotations import drawing
from stages.ingest.annotations.class_names import ClassNames
from stages.ingest.annotations.shapes import AnnotatedImage

Read = Callable[[Findings, "Counter[str]"], Iterator[AnnotatedImage]]
"""Reads annotations: gets findings, and counts what is read otherwise than one may think."""

_VERSION = "1"
"""Increased when the same annotations give another index."""
_ENOUGH = 1000
"""Faults after which reading stops: the file is most likely of another kind."""


@dataclass
class AnnotationIndex:
    """An index of annotations.

    Attributes:
        digests: By name of the image, in order: the digest of its shapes (`drawing.digest`), None
            if nobody has annotated it.
        remarks: Lines for the user.
    """

    digests: Mapping[str, str | None]
    remarks: list[str] = field(default_factory=list)


def read_index(
    cached: Path, about: object, read: Read, names: ClassNames, file: str
) -> AnnotationIndex:
    """Reads an index, or makes it of the annotations.

    Args:
        cached: The file that holds it; may be missing.
        about: Plain values: all that the annotations and the choice of their images depend on.
        read: Reads the annotations.
        names: Maps names to classes.
        file: The annotations, for errors.

    Raises:
        DataError: All that is wrong with the annotations.
    """
    values = json.dumps([_VERSION, about, names.facts()])
    made_from = hashlib.sha256(values.encode()).hexdigest()
    if (known := cached_table.read(cached, made_from)) is not None:
        table, more = known
        keys = map(os.fsdecode, table["name"].to_pylist())
        return AnnotationIndex(dict(zip(keys, table["digest"].to_pylist(), strict=True)), **more)
    found = _build(read, names, file)
    columns = {
        "name": pa.array(map(os.fsencode, found.digests), pa.binary()),  # may be any bytes
        "digest": pa.array(found.digests.values(), pa.string()),
    }
    cached_table.write(cached, made_from, pa.table(columns), {"remarks": found.remarks})
    return found


def _build(read: Read, names: ClassNames, file: str) -> AnnotationIndex:
    findings, remarks = Findings(), Counter[str]()
    digests: dict[str, str | None] = {}
    twice: dict[str, str] = {}
    outside = 0
    for image in read(findings, remarks):
        if len(findings.by_text) >= _ENOUGH:
            break
        if not _is_path(image.name):
            what = f"{image.name[:40]!a} can be no name of a file"
            findings.add(DataError(what, where=image.where, fix="correct it"))
        elif image.name in digests:
            twice.setdefault(image.name, image.where)
        else:
            ids = names.ids_of(image.shapes or ())
            digest = drawing.digest(image, ids, names.rest)
            digests[image.name] = None if image.shapes is None else digest
            outside += image.num_outside()
    if twice:
        name, where = next(iter(twice.items()))
        count = f"{len(twice):,} image{'s are' if twice.keys() - {name} else ' is'}"
        what = f"{count} listed twice, first: {name}"
        findings.add(DataError(what, where=where, fix="keep one of the entries"))
    if (unknown := names.fault(file)) is not None:
        findings.add(unknown)
    if findings.faults:
        raise together(findings.faults)
    if outside:
        remarks["shapes that reach out of their image, cut off"] = outside
    lines = [f"{what}: {count:,}" for what, count in sorted(remarks.items())]
    return AnnotationIndex(digests, lines)


def _is_path(name: str) -> bool:
    """Whether a name can be that of a file: JSON may hold half a character."""
    try:
        return bool(os.fsencode(name))
    except UnicodeEncodeError:
        return False
