"""Lists the sources of a run, and finds all that is wrong with them."""

from __future__ import annotations

from collections.abc import Collection
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
from stages.ingest.sources.base import LISTING


def list_sources(
    config: Config, section: IngestConfig, known: Collection[str], away: dict[str, Path]
) -> tuple[pa.Table, list[str]]:
    """The images of all sources with their source, role and scheme, and remarks of the sources.

    Args:
        config: The run.
        section: Its section `ingest`.
        known: The sources that have images in the manifest.
        away: Gets the folders of known sources that are away, whose images are all gone, perhaps
            for a moment.

    Raises:
        MaskmillError: What is wrong with the sources, all of it.
    """
    findings = Findings()
    listed: list[pa.Table] = []
    remarks: list[str] = []
    # Test and val images come first: of equal images only the first is used.
    sources = section.sources.items()
    for name, source in sorted(sources, key=lambda item: PRECEDENCE.index(item[1].role)):
        check_scheme(config, name, source, findings)
        with findings.collecting():
            folder = next(iter(source.create(config, name).paths.values()))
            if name in known and is_away(folder):
                away[name] = folder
                listed.append(_in_columns(arrays.empty(LISTING), name, source))
                continue
            images, found = _listed(config, name, source)
            listed.append(images)
            remarks.extend(found)
    if findings.faults:
        raise together(findings.faults)
    return pa.concat_tables(listed), remarks


def check_scheme(config: Config, name: str, source: SourceConfig, findings: Findings) -> None:
    """Finds a label scheme that does not exist, or gives no pixel a class."""
    scheme, vocabulary = source.label_scheme, config.vocabulary
    where = f"{config.path}: ingest.sources.{name}.label_scheme"
    if scheme is None or scheme == CLASS_COLORS:
        return
    if scheme not in vocabulary.label_schemes:
        known = ", ".join(vocabulary.label_schemes) or "none; leave the key out"
        what = f"vocabulary {vocabulary.name!r} has no scheme {scheme!r}"
        findings.add(ConfigError(what, where=where, fix=f"it has: {known}"))
    elif not reached(vocabulary, scheme):
        what = f"the scheme {scheme!r} of vocabulary {vocabulary.name!r} ignores every value"
        findings.add(ConfigError(what, where=where, fix="give at least one value a class in it"))


def _listed(config: Config, name: str, source: SourceConfig) -> tuple[pa.Table, list[str]]:
    origin = source.create(config, name)
    images = origin.list()
    lacking = images["mask"].null_count
    if source.role in MASKED and lacking:
        what = f"images of role {source.role} need label files"
        fix = "name their folder with `masks: ...`, or add a column `mask_uri` to the list"
        if lacking < images.num_rows:
            first = images["image"].filter(pc.is_null(images["mask"]))[0]
            what = f"{what}, but {lacking} of {images.num_rows} have none, first: {first}"
            fix = "add its label file to `masks`, or name the other images in `ids: FILE`"
        raise DataError(what, where=f"{config.path}: ingest.sources.{name}.source", fix=fix)
    return _in_columns(images, name, source), [f"{name}: {remark}" for remark in origin.remarks]


def _in_columns(images: pa.Table, name: str, source: SourceConfig) -> pa.Table:
    """Images with the columns source, role and scheme."""
    for key, value in {"source": name, "role": source.role, "scheme": source.label_scheme}.items():
        column = pa.repeat(arrays.text(value), images.num_rows)
        images = images.append_column(key, column)
    return images
