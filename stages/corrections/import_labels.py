"""Corrected labels come back: those that were changed become labeled images of the run."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path

from pipeline.config.config import Config
from pipeline.config.config_section import Facts
from pipeline.console import Console
from pipeline.engine.output_folder import OutputFolder, output_folder
from pipeline.errors import ConfigError, DataError
from pipeline.files import storage, tar
from pipeline.files.checksum import checksum_of_bytes
from stages.corrections.changes import FormerLabels
from stages.corrections.corrected import corrected_masks
from stages.corrections.exported import Exported, read_exported
from stages.corrections.source_entry import add_source, entry_lines
from stages.export.export import PROVENANCE
from stages.export.sample import mask_png

LIST = "images.csv"
_COLUMNS = ("uri", "mask_uri", "name", "image_id", "role", "labeler", "fingerprint", "tool")


@dataclass(frozen=True)
class Request:
    """What comes back.

    Attributes:
        folder: The folder that `maskmill export labels` wrote.
        annotations: What the tool gave back, if the folder's own files were not changed.
        out: Folder of the corrected masks, below the config's.
        takes_all: Whether labels that were not changed count as looked at and right.
    """

    folder: Path
    annotations: Path | None
    out: Path
    takes_all: bool = False


def import_labels(request: Request, config: Config, console: Console) -> None:
    """Writes the corrected masks, and adds them to the config as labeled images.

    Raises:
        MaskmillError: The export, the annotations or the folder of results cannot be used, or
            nothing was corrected.
    """
    exported = read_exported(request.folder)
    if exported.facts["run"] != config.run.run:
        what = f"labels of the run {exported.facts['run']}, not of {config.run.run}"
        fix = "name the config of that run with --config"
        raise ConfigError(what, where=str(request.folder), fix=fix)
    former = FormerLabels(config, exported)
    with output_folder(request.out, "corrected labels", _facts(request, exported)) as folder:
        if folder.is_finished:
            folder.finish()  # a kill may have left the journal
            console.line(f"{request.out}: nothing to do, it was imported before")
            return
        rows, unchanged = [], 0
        for name, mask in corrected_masks(exported, request.annotations, config.vocabulary):
            if not request.takes_all and not former.is_corrected(name, mask):
                unchanged += 1
                continue
            file = f"masks/{name}.png"
            folder.write(file, mask_png(mask, config.vocabulary.palette))
            rows.append(_row(exported, name, request.out / file))
        if not rows:
            what = f"no label was corrected ({unchanged:,} are as they were exported)"
            fix = "correct some, name the tool's file with --annotations, or take all with --all"
            raise DataError(what, where=str(request.annotations or request.folder), fix=fix)
        _write_list(folder, rows)
        folder.finish()
    console.note(f"{unchanged:,} labels as they were exported, left as they are")
    _tell_config(request, config, len(rows), console)


def _facts(request: Request, exported: Exported) -> Facts:
    mark = checksum_of_bytes(exported.folder / PROVENANCE)
    own = request.annotations
    content = checksum_of_bytes(own) if own is not None and own.is_file() else str(own)
    return {"export": mark, "annotations": content, "all": request.takes_all}


def _row(exported: Exported, name: str, mask: Path) -> dict[str, str]:
    own = exported.rows[name]
    uri = own["image"]
    if storage.is_object(uri) or tar.parse(uri) is not None:
        what = "its image lies in a bucket or an archive, beside which no label file can be named"
        fix = "unpack the images to a folder, and let the source name that"
        raise DataError(what, where=uri, fix=fix)
    known = {column: own.get(column, "") for column in _COLUMNS}
    places = {"uri": str(Path(uri).resolve()), "mask_uri": str(mask.resolve())}
    return {**known, **places, "name": name, "tool": exported.format}


def _write_list(folder: OutputFolder, rows: list[dict[str, str]]) -> None:
    with folder.replacing(LIST) as path, path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, _COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def _tell_config(request: Request, config: Config, count: int, console: Console) -> None:
    name = re.sub("[^a-z0-9_-]+", "-", f"corrected-{request.out.name}".lower())
    listed = (request.out / LIST).resolve()
    folder = config.path.parent.resolve()
    spelled = str(listed.relative_to(folder) if listed.is_relative_to(folder) else listed)
    images = f"{count:,} corrected image{'s'[: count != 1]}"
    if add_source(config.path, name, spelled):
        console.line(f"{images} added to {config.path} as the labeled source {name}")
        return
    console.note(f"{images} in {request.out}; add this to `ingest.sources` of {config.path}:")
    for line in entry_lines(name, spelled):
        console.line(line)
