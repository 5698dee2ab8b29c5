"""Lists the sources of a run, and collects their faults."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config.config import Config
from pipeline.config.vocabulary import CLASS_COLORS
from pipeline.config.vocabulary_doubts import reached
from pipeline.engine.findings import Findings
from pipeline.errors import ConfigError, DataError, together
from pipeline.records import arrays
from stages.ingest.config import MASKED, IngestConfig, SourceConfig
from stages.ingest.duplicates import PRECEDENCE
from stages.ingest.gone import is_away
from stages.ingest.sources.base import LISTING, Source


@dataclass
class Listing:
    """The images that the sources of a run list now.

    Attributes:
        images: A table of the schema `LISTING`, with the columns source, role and scheme.
        remarks: Lines about what no row shows.
        away: Missing or empty folders of known sources, whose images are all gone, maybe for a
            moment.
        undrawn: Sources that have label files to draw.
    """

    images: pa.Table
    remarks: list[str] = field(default_factory=list)
    away: dict[str, Path] = field(default_factory=dict)
    undrawn: list[Source] = field(default_factory=list)


def list_sources(config: Config, section: IngestConfig, known: Collection[str]) -> Listing:
    """Lists the images of all sources.

    Args:
        config: The run.
        section: Its section `ingest`.
        known: The sources that have images in the manifest.

    Raises:
        MaskmillError: Everything that is wrong with the sources.
    """
    findings = Findings()
    tables: list[pa.Table] = []
    found = Listing(arrays.empty(LISTING))
    # Test and val images come first: of equal images only the first is used.
    sources = section.sources.items()
    for name, source in sorted(sources, key=lambda item: PRECEDENCE.index(item[1].role)):
        check_scheme(config, name, source, findings)
        with findings.collecting():
            origin = source.create(config, name)
            folder = next(iter(origin.paths.values()))
            if name in known and is_away(folder):
                found.away[name] = folder
                images = arrays.empty(LISTING)
            else:
                images = origin.list()
                _check_masks(config, name, source, images)
                found.remarks += [f"{name}: {remark}" for remark in origin.remarks]
                found.undrawn += [origin] if origin.undrawn else []
            tables.append(_in_columns(images, name, source))
    if findings.faults:
        raise together(findings.faults)
    found.images = pa.concat_tables(tables)
    return found


def check_scheme(config: Config, name: str, source: SourceConfig, findings: Findings) -> None:
    """Finds a label scheme that does not exist, gives no pixel a class, or reads no label file."""
    scheme, vocabulary = source.label_scheme, config.vocabulary
    where = f"{config.path}: ingest.sources.{name}.label_scheme"
    if scheme is not None and source.source.component.draws:
        what = f"a source {source.source.name} has annotations with names, no label files"
        findings.add(ConfigError(what, where=where, fix="map names with `names` of the source"))
        return
    if scheme is None or scheme == CLASS_COLORS:
        return
    if scheme not in vocabulary.label_schemes:
        known = ", ".join(vocabulary.label_schemes) or "none; leave the key out"
        what = f"vocabulary {vocabulary.name!r} has no scheme {scheme!r}"
        findings.add(ConfigError(what, where=where, fix=f"it has: {known}"))
    elif not reached(vocabulary, scheme):
        what = f"the scheme {scheme!r} of vocabulary {vocabulary.name!r} ignores every value"
        findings.add(ConfigError(what, where=where, fix="give at least one value a class in it"))


def _check_masks(config: Config, name: str, source: SourceConfig, images: pa.Table) -> None:
    """Refuses images without label files of a role that needs them."""
    lacking = images["mask"].null_count
    if source.role not in MASKED or not lacking:
        return
    what = f"images of role {source.role} need label files"
    fix = "name their folder with `masks: ...`, or add a column `mask_uri` to the list"
    if lacking < images.num_rows:
        first = images["image"].filter(pc.is_null(images["mask"]))[0]
        what = f"{what}, but {lacking} of {images.num_rows} have none, first: {first}"
        fix = "add its label file to `masks`, or name the other images in `ids: FILE`"
    if source.source.component.draws:
        fix = "annotate it, or take the image out of this source"
    raise DataError(what, where=f"{config.path}: ingest.sources.{name}.source", fix=fix)


def _in_columns(images: pa.Table, name: str, source: SourceConfig) -> pa.Table:
    """Images with the columns source, role and scheme."""
    for key, value in {"source": name, "role": source.role, "scheme": source.label_scheme}.items():
        column = pa.repeat(arrays.text(value), images.num_rows)
        images = images.append_column(key, column)
    return images
