"""The images manifest, as later stages read it."""

from collections import Counter
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config.config import Config
from pipeline.engine.held_images import GONE
from pipeline.errors import DataError
from pipeline.records import arrays, manifest, part_file, snapshot, tables
from pipeline.records.rows import ImageRow
from pipeline.records.sharded_table import ShardedTable
from stages.ingest.config import IngestConfig, ingest_section
from stages.labels.supervision import LabelFile, Supervision

Rows = list[dict[str, Any]]

_READ = ("row", "image_id", "role", "uri", "mask_uri", "mask_id", "label_scheme", "status")
_REASONS_TOLD = 3
_BACKSLASH = "\\"
_USE_SLASHES = "write paths with `/`: a backslash is part of a name here"


def read_images(manifests: Path, roles: Collection[str], more: tuple[str, ...] = ()) -> pa.Table:
    """Reads the good images of these roles, in the order of rows; with `more` of the columns."""
    images = manifest.read(manifests / tables.IMAGES.name, tables.IMAGES, _READ + more)
    is_wanted = _is_good(images, roles)
    return images if pc.all(is_wanted).as_py() else images.filter(is_wanted)


def no_image(config: Config, role: str) -> DataError:
    """The error where no image of a role can be used, with the cause."""
    where = f"{config.path}: ingest.sources"
    if not any(source.role == role for source in ingest_section(config).sources.values()):
        fix = f"add a source with `role: {role}` whose images are readable"
        return DataError(f"no {role} image", where=where, fix=fix)
    columns = ["role", "status", "error_message", "uri"]
    images = manifest.read(config.manifests / tables.IMAGES.name, tables.IMAGES, columns)
    every = arrays.having(images, "role", role)
    images = every.filter(pc.not_equal(every["status"], arrays.text(GONE)))
    if every.num_rows and not images.num_rows:
        count = "the only" if every.num_rows == 1 else f"all {every.num_rows}"
        are = "image is" if every.num_rows == 1 else "images are"
        what = f"{count} {role} {are} gone (first: {every['uri'][0].as_py()})"
        fix = "put them back, or remove the source and what reads it"
        return DataError(what, where=where, fix=fix)
    if not images.num_rows:
        what = f"no {role} image was read yet"
        return DataError(what, where=where, fix="run `maskmill run ingest`")
    return none_usable(config, role, images.to_pylist())


def none_usable(config: Config, role: str, images: Sequence[ImageRow]) -> DataError:
    """The error where all images of a role were rejected or are copies; counts the reasons.

    Args:
        config: The run.
        role: The role.
        images: The columns status, error_message and uri of its rows of the images manifest.
    """
    reasons = Counter(map(_reason, images)).most_common()
    told = ", ".join(f"{count} {reason}" for reason, count in reasons[:_REASONS_TOLD])
    more = f" and {len(reasons) - _REASONS_TOLD} more reasons" if reasons[_REASONS_TOLD:] else ""
    what = f"none of the {len(images)} {role} images can be used: {told}{more}"
    fix = f"correct the sources of role {role}; the column error_message of images has each reason"
    if all(_BACKSLASH in image["uri"] for image in images):
        fix = _USE_SLASHES
    return DataError(what, where=f"{config.path}: ingest.sources", fix=fix)


def _reason(image: ImageRow) -> str:
    if image["status"] == "duplicate":
        return "the same as other images"
    return str(image["error_message"])


def read_supervision(config: Config, role: str) -> Supervision:
    """What the label files of a role's good images hold, from the images manifest."""
    return snapshot.once(
        ("label files", config.manifests, role), lambda: _read_supervision(config, role)
    )


def _read_supervision(config: Config, role: str) -> Supervision:
    folder = config.manifests / tables.IMAGES.name
    columns = ["role", "status", "source", "shard", "mask_uri", "label_scheme", "mask_ignored"]
    images = manifest.read(folder, tables.IMAGES, columns)
    is_wanted = pc.and_(_is_good(images, [role]), pc.is_valid(images["mask_uri"]))
    images = images.append_column("is_wanted", is_wanted)
    files = []
    # Only the parts have columns of lists, and few parts have label files.
    for shard in images.filter(is_wanted)["shard"].unique().to_pylist():
        own = images.filter(arrays.flags(arrays.numbers(images["shard"]) == shard))
        own = own.append_column("mask_class_ids", _class_ids(folder, shard))
        files += [label_file(row) for row in own.filter(own["is_wanted"]).to_pylist()]
    return Supervision(role, tuple(files), config.vocabulary)


def _class_ids(folder: Path, shard: int) -> pa.ChunkedArray:
    """The classes that the label files of a shard's images show, in the order of rows."""
    part, column = folder / part_file.part_name(shard), "mask_class_ids"
    read = partial(manifest.read_part, part, tables.IMAGES, [column])
    return snapshot.once((column, part), read)[column]


def label_file(row: dict[str, Any] | ImageRow) -> LabelFile:
    """What the label file of a row of the images manifest holds."""
    return LabelFile(
        row["mask_uri"] or "",
        row["source"],
        row["label_scheme"],
        frozenset(row["mask_class_ids"] or ()),
        row["mask_ignored"],
    )


def read_images_with_masks(manifests: Path, roles: Collection[str]) -> pa.Table:
    """Reads the good images of these roles that have label files, in the order of rows."""
    images = manifest.read(manifests / tables.IMAGES.name, tables.IMAGES, _READ)
    return images.filter(pc.and_(_is_good(images, roles), pc.is_valid(images["mask_uri"])))


def read_shards(config: Config, roles: Collection[str]) -> ShardedTable:
    """Reads the good images of these roles by shard.

    Raises:
        DataError: There is no such image.
    """
    images = read_images(config.manifests, roles)
    if not images.num_rows:
        given = {source.role for source in ingest_section(config).sources.values()}
        raise no_image(config, min({*roles} & given, default=min(roles)))
    ingest = config.sections["ingest"]
    assert isinstance(ingest, IngestConfig)
    return ShardedTable(images, ingest.shard_size)


def _is_good(images: pa.Table, roles: Collection[str]) -> pa.ChunkedArray:
    """(N,) bool: which images can be used and have one of these roles."""
    is_ok = pc.equal(images["status"], arrays.text("ok"))
    return pc.and_(is_ok, pc.is_in(images["role"], arrays.texts(roles)))
