"""Predicts images by a trained network, and writes files and a table. Start here."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import stopping
from pipeline.config.config_section import Facts
from pipeline.console import Console
from pipeline.engine.output_folder import OutputFolder, output_folder
from pipeline.errors import DataError
from pipeline.files.checksum import checksum_of_bytes
from pipeline.files.machine_cache import cache_folder
from pipeline.images.faults import UnreachableImageError, UnreadableImageError
from pipeline.records.rows import PredictionRow
from pipeline.stopping import Stopped
from stages.models.segmenters.description import read_description
from stages.predict.inputs import Input, find_inputs
from stages.predict.output import CLASSES
from stages.predict.table import earlier_rows, write_rows

if TYPE_CHECKING:
    from stages.predict.decoding import Decoded
    from stages.predict.writer import PredictionWriter


@dataclass(frozen=True)
class Request:
    """What to predict, by what, and where to.

    Attributes:
        what: Images, folders, patterns, lists, tar archives and videos.
        model: The model file.
        out: The folder of results.
        kinds: Kinds of files to write; see `stages.predict.kinds.KINDS`.
        device: The device, as in a config.
        every: Of a video's frames every how many is predicted.
    """

    what: Sequence[str]
    model: Path
    out: Path
    kinds: Sequence[str]
    device: str = "auto"
    every: int = 1


def predict(request: Request, console: Console) -> None:
    """Predicts all images that are not predicted yet.

    Raises:
        MaskmillError: The model file, an argument or the folder of results cannot be used, or no
            image can be read.
        Stopped: A signal asked to stop; the same call goes on.
    """
    read_description(request.model)
    facts: Facts = {"model": checksum_of_bytes(request.model), "to": [*sorted(request.kinds)]}
    with output_folder(request.out, "predictions", facts) as folder:
        rows = earlier_rows(folder)
        names = {image: row["name"] for image, row in rows.items()}
        inputs = find_inputs(request.what, cache_folder() / "tar_indexes", request.every, names)
        for remark in inputs.remarks:
            console.note(remark)
        todo = [image for image in inputs.images if not _is_done(image, rows, request)]
        if todo:
            for row in _predicted(request, folder, todo, console):
                folder.add(row)
                rows[row["image"]] = row
        write_rows(folder, rows, [image.address for image in inputs.images])
        folder.write(CLASSES, _classes(request.model))
        folder.finish()
    _report(request, [rows[image.address] for image in inputs.images], len(todo), console)


def _classes(model: Path) -> bytes:
    """The classes of a model file as JSON, in the order of their ids."""
    entries = read_description(model).vocabulary.classes
    plain = [{"name": entry.name, "color": entry.color} for entry in entries]
    return f"{json.dumps(plain, indent=1, ensure_ascii=False)}\n".encode()


def _is_done(image: Input, rows: Mapping[str, PredictionRow], request: Request) -> bool:
    """Whether an earlier call predicted an image that is the same now, or could not read it."""
    from stages.predict.kinds import KINDS

    row = rows.get(image.address)
    if row is None or row["stamp"] != image.stamp or row["status"] == "failed":
        return False
    files = (request.out / KINDS[kind].file(image.name) for kind in request.kinds)
    return row["status"] == "rejected" or all(file.exists() for file in files)


def _predicted(
    request: Request, folder: OutputFolder, todo: Sequence[Input], console: Console
) -> Iterator[PredictionRow]:
    """Predicts images and writes their files; yields the row of each."""
    from stages.models.device import pick_device
    from stages.models.segmenters.model_file import load_model_file
    from stages.predict.decoding import decoded
    from stages.predict.writer import PredictionWriter

    predictor = load_model_file(request.model, pick_device(request.device))
    vocabulary = read_description(request.model).vocabulary
    writer = PredictionWriter(predictor, vocabulary, folder, request.kinds)
    pictures = decoded(image.address for image in todo if image.problem is None)
    with console.progress("predict", len(todo), "images") as progress, closing(pictures):
        for count, image in enumerate(todo):
            if stopping.asked():
                raise Stopped(f"predict: {count:,} of {len(todo):,} images are done")
            picture = image.problem or next(pictures)
            row: PredictionRow = {"image": image.address, "name": image.name, "stamp": image.stamp}
            yield {**row, **_outcome(picture, image, writer)}
            progress.advance()


def _outcome(
    picture: Decoded | UnreadableImageError | str, image: Input, writer: PredictionWriter
) -> PredictionRow:
    """What is known of an image after its files were written."""
    if isinstance(picture, UnreachableImageError):
        return {"status": "failed", "error_message": str(picture)}
    if isinstance(picture, UnreadableImageError | str):
        return {"status": "rejected", "error_message": str(picture)}
    try:
        return {"status": "ok", "image_id": picture.image_id, **writer.write(picture, image)}
    except UnreachableImageError as error:
        return {"status": "failed", "error_message": str(error)}


def _report(request: Request, rows: Sequence[PredictionRow], new: int, console: Console) -> None:
    """Prints what was done.

    Raises:
        DataError: No image is good.
    """
    bad = [row for row in rows if row["status"] != "ok"]
    reasons = Counter(row["error_message"] for row in bad)
    if len(bad) == len(rows):
        (reason, _), *_ = reasons.most_common(1)
        what = f"none of {len(rows):,} images can be read: {reason}"
        raise DataError(what, where=str(bad[0]["image"]), fix="name other images")
    if bad:
        shown = "; ".join(f"{reason} ({count:,})" for reason, count in reasons.most_common(3))
        console.warn(f"{len(bad):,} of {len(rows):,} images have no prediction: {shown}")
    console.line(f"{len(rows) - len(bad):,} images predicted, {new:,} of them now: {request.out}")
