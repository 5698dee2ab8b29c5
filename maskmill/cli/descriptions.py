"""What `maskmill list` and the help show: names, each with a line from its own documentation."""

import importlib
import sys
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from pathlib import Path

from maskmill import shipped_configs
from pipeline.config import components
from pipeline.errors import ConfigError

Described = Mapping[str, str]
"""By name: one line."""


def stages() -> Described:
    """The stages in order."""
    from stages.graph import GRAPH

    return {stage.name: _without_name(stage.__module__) for stage in GRAPH}


def described(what: str, workspace: Path) -> Described:
    """The things of a kind, e.g. "labelers".

    Args:
        what: One of `KINDS`.
        workspace: The folder whose runs are listed.

    Raises:
        ConfigError: There is no such kind.
    """
    if what == "runs":
        return _runs(workspace)
    what = what.replace("_", "-")  # as configs write it
    if what not in KINDS:
        fix = f"use one of: {', '.join((*KINDS, 'runs'))}"
        raise ConfigError(f"nothing is called {what!r}", where="maskmill list", fix=fix)
    return KINDS[what]()


def _family(package: str) -> Described:
    """The components of a package."""
    names = components.names(package)
    return {name: _first_paragraph(f"{package}.{name}") for name in names}


def _presets() -> Described:
    from stages.train import preset

    return {
        name: shipped_configs.description(preset.FOLDER / f"{name}.yaml") for name in preset.names()
    }


def _vocabularies() -> Described:
    folder = shipped_configs.folder() / "vocabularies"
    return {
        name: shipped_configs.description(folder / f"{name}.yaml")
        for name in shipped_configs.vocabularies()
    }


def _image_files() -> Described:
    """Endings of image files."""
    from stages.ingest.file_kind import IMAGE_ENDINGS, UNDECODED_ENDINGS

    read = "Is read: images, and label files where the file keeps their values."
    known = "Is known and not read: such a file is a row that says so."
    return {
        ending.removeprefix("."): known if ending in UNDECODED_ENDINGS else read
        for ending in sorted(IMAGE_ENDINGS)
    }


def _runs(workspace: Path) -> Described:
    """Runs of a workspace: the tables that they have, and when the last one was written."""
    found = {}
    for run in sorted((workspace / "manifests").glob("[!.]*/")):
        tables = sorted(path for path in run.glob("[!.]*/"))
        if tables:
            last = max(path.stat().st_mtime for path in tables)
            when = datetime.fromtimestamp(last).strftime("%Y-%m-%d %H:%M")
            found[run.name] = f"{', '.join(path.name for path in tables)}; last written {when}"
    return found


def _first_paragraph(module: str) -> str:
    """The first paragraph of a module's documentation, as a line."""
    importlib.import_module(module)
    text = sys.modules[module].__doc__ or ""
    return " ".join(text.partition("\n\n")[0].split())


def _without_name(module: str) -> str:
    """The first paragraph without the name that it begins with: "Train: a segmenter ..."."""
    text = _first_paragraph(module).partition(": ")[2]
    return text[:1].upper() + text[1:]


KINDS: Mapping[str, Callable[[], Described]] = {
    "labelers": partial(_family, "stages.pseudolabel.labelers"),
    "presets": _presets,
    "networks": partial(_family, "stages.models.segmenters.builders"),
    "vocabularies": _vocabularies,
    "sources": partial(_family, "stages.ingest.sources"),
    "perturbations": partial(_family, "stages.train.step.perturbations"),
    "label-sources": partial(_family, "stages.train.step.label_sources"),
    "losses": partial(_family, "stages.train.step.supervised_losses"),
    "formats": partial(_family, "stages.export.formats"),
    "image-files": _image_files,
    "stages": stages,
}
"""Functions that list the things of each kind."""
