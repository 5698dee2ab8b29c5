"""Writes labels in the format of another tool, image by image; an interrupted call goes on."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pipeline import stopping
from pipeline.config import components
from pipeline.console import Console
from pipeline.engine.output_folder import OutputFolder, output_folder
from pipeline.errors import ConfigError, DataError
from pipeline.stopping import Stopped
from stages.export.formats.base import Format
from stages.export.labeled_images import Item, LabeledImages
from stages.export.sample import Sample

FAMILY = "stages.export.formats"
PROVENANCE = "maskmill.csv"
"""The table that says where each exported image and label come from."""
_PROVENANCE = ("name", "split", "image", "image_id", "role", "labeler", "fingerprint")


@dataclass(frozen=True)
class Records:
    """What the journal holds of all images, in order; read anew each time, so never in memory."""

    folder: OutputFolder
    key: str

    def __iter__(self) -> Iterator[Any]:
        for piece in self.folder.each_piece():
            yield from piece[self.key]


def folders(formats: str, out: Path) -> list[tuple[str, Path]]:
    """The formats of a list such as "png,coco" with the folder of each.

    Raises:
        ConfigError: A format is unknown, or named twice.
    """
    names = [name.strip() for name in formats.split(",")]
    for name in names:
        _format(name)
    if len({*names}) < len(names):
        raise ConfigError("a format is named twice", where=f"--to {formats}", fix="name it once")
    return [(name, out / name if names[1:] else out) for name in names]


def export(labels: LabeledImages, name: str, out: Path, console: Console) -> None:
    """Writes all labels to a folder.

    Args:
        labels: The images and their labels.
        name: The format.
        out: The folder; new, empty, or of an unfinished export of the same labels.
        console: Prints.

    Raises:
        MaskmillError: The format is unknown, the folder holds other things, or an image or a label
            cannot be read any more.
        Stopped: A signal asked to stop; the same call goes on.
    """
    kind = _format(name)
    facts = {"format": name, "version": kind.version, **labels.facts}
    with output_folder(out, "exported labels", facts) as folder:
        if folder.is_finished:
            folder.finish()  # a kill may have left the journal
            console.line(f"{out}: nothing to do, it was exported before")
            return
        form = kind(folder, labels.vocabulary)
        _write_shards(labels, form, folder, console)
        form.finish(Records(folder, "records"))
        _write_provenance(folder)
        failed = [*Records(folder, "failed")]
        folder.finish()
    _report(labels, form, failed, console)
    count = labels.count - len(failed)
    console.line(f"{count:,} image{'s'[: count != 1]} exported to {out} as {name}")


def _format(name: str) -> type[Format]:
    known = components.names(FAMILY)
    if name not in known:
        fix = f"use one of: {', '.join(known)}"
        raise ConfigError(f"no format {name!r}", where="--to", fix=fix)
    found = components.find(FAMILY, name, Format)  # type: ignore[type-abstract]
    if found.needs is not None and find_spec(found.needs) is None:
        what, fix = f"{name} needs the library {found.needs}", "pip install 'maskmill[export]'"
        raise ConfigError(what, where=f"--to {name}", fix=fix)
    return found


def _write_shards(
    labels: LabeledImages, form: Format, folder: OutputFolder, console: Console
) -> None:
    """Writes the shards that are not done."""
    done = {piece["shard"]: piece["count"] for piece in folder.each_piece()}
    count = sum(done.values())
    with console.progress("export", labels.count, "images") as progress:
        progress.advance(count)
        for shard, items in labels.shards():
            if stopping.asked():
                raise Stopped(f"export: {count:,} of {labels.count:,} images are done")
            chosen = [*items]
            if shard in done:
                continue
            failed: list[str] = []
            samples = _samples(labels, chosen, failed)
            records = [*form.write(samples, shard)]
            told = [_provenance(item) for item in chosen if item.name not in failed]
            piece = {"shard": shard, "count": len(chosen), "records": records}
            folder.add({**piece, "provenance": told, "failed": failed})
            count += len(chosen)
            progress.advance(len(chosen))


def _samples(labels: LabeledImages, items: Sequence[Item], failed: list[str]) -> Iterator[Sample]:
    """Reads images; the names of those that cannot be read any more come to `failed`."""
    for item in items:
        try:
            yield labels.sample(item)
        except DataError:
            failed.append(item.name)


def _report(labels: LabeledImages, form: Format, failed: list[str], console: Console) -> None:
    """Says what is not there, and what the format cannot say."""
    for reason, left in labels.left_out.items():
        console.note(f"{left:,} image{'s'[: left != 1]} left out: {reason}")
    if failed:
        what = f"{len(failed):,} image{'s'[: len(failed) != 1]} left out, as a file is gone"
        console.warn(f"{what} or has changed; first: {failed[0]}")
    if not form.has_ignore:
        console.note(f"{form.file_name()} knows no ignored pixels: they are like the background")


def _provenance(item: Item) -> dict[str, Any]:
    known = {**item.row, "name": item.name, "split": item.split, "image": item.row["uri"]}
    return {name: known.get(name) for name in _PROVENANCE}


def _write_provenance(folder: OutputFolder) -> None:
    with folder.replacing(PROVENANCE) as path, path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, _PROVENANCE, lineterminator="\n")
        table.writeheader()
        table.writerows(Records(folder, "provenance"))
