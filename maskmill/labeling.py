"""Labels a folder of images in one call: config, stage one and export, below one folder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from maskmill.cli.opened_run import opened_run
from pipeline.console import Console
from pipeline.engine.runner import Request as RunRequest
from pipeline.engine.runner import Runner
from pipeline.errors import DataError
from pipeline.files import storage
from stages.export.export import export, folders
from stages.export.run_labels import RunLabels
from stages.graph import GRAPH
from stages.init.found import Folders
from stages.init.init import Request as InitRequest
from stages.init.init import propose
from stages.init.project import CONFIG, LABELER, VOCABULARY, Project

WORKSPACE = "run"
"""The folder of the config, the manifests and the store, below that of the results."""


@dataclass(frozen=True)
class Request:
    """What to label.

    Attributes:
        folder: Images, with label files or without.
        out: Folder of the results.
        classes: Class names, as for `init`.
        formats: Formats of the export, with commas.
        min_confidence: Less sure pixels are ignored, from 0 to 1.
        allows_stand_in: Whether the sandbox's toy may label where weights are missing.
    """

    folder: Path
    out: Path
    classes: str
    formats: str
    min_confidence: float = 0
    allows_stand_in: bool = False


def label(request: Request, console: Console) -> None:
    """Labels what is not labeled yet, and exports all labels.

    Raises:
        MaskmillError: The folder, the classes or the weights cannot be used, or the folder of
            results holds other things.
        Stopped: A signal asked to stop; the same call goes on.
    """
    targets = folders(request.formats, request.out)
    targets = [(name, request.out / name) for name, _ in targets]
    workspace = request.out / WORKSPACE
    asked = InitRequest(
        Folders(request.folder),
        workspace,
        request.classes,
        allows_stand_in=request.allows_stand_in,
    )
    project = _only_labels(propose(asked, lambda question, default: default))
    _write(project, workspace)
    with opened_run(workspace / CONFIG, [f"workspace={workspace}"]) as config:
        Runner(config, GRAPH, console).run(RunRequest(("pseudolabel",)))
        roles = ["ood", "unlabeled"]
        labels = RunLabels(config, LABELER, roles, request.min_confidence, None)
        for name, folder in targets:
            export(labels, name, folder, console)


def _only_labels(project: Project) -> Project:
    """The project without training and without counts, which more images would change."""
    entries = {name: replace(entry, comment="") for name, entry in project.sources.items()}
    return replace(project, training=None, sources=entries, findings=())


def _write(project: Project, workspace: Path) -> None:
    """Writes config, vocabulary and lists; the vocabulary of an earlier call must be the same.

    Raises:
        DataError: An earlier call had other classes.
    """
    for name, text in project.files().items():
        path, content = workspace / name, text.encode()
        if name == VOCABULARY and path.exists() and storage.read_bytes(path) != content:
            what = "an earlier call with other classes labeled into this folder"
            own = f"maskmill run --config {workspace / CONFIG}"
            fix = f"use another --out; or edit it, and run `{own}`"
            raise DataError(what, where=str(path), fix=fix)
        storage.write_bytes(path, content)
