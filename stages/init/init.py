"""The command `init`: from folders to a config that runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.console import Console
from pipeline.errors import ConfigError, StorageError
from pipeline.files import storage
from stages.init import classes as class_lists
from stages.init.classes import Classes
from stages.init.found import Folders, Found
from stages.init.labels_seen import LabelsSeen, look_at
from stages.init.look import look
from stages.init.machine import clip_weights, training
from stages.init.places import near
from stages.init.project import Project, SourceEntry

Ask = Callable[[str, str], str]
"""Asks the user a question, with a default; where nobody can be asked it gives the default."""


@dataclass(frozen=True)
class Request:
    """What the user says.

    Attributes:
        folders: Folders of images and label files.
        into: Folder of the new files.
        classes: Class names, maybe with values or colours; None: found beside the images.
        name: Name of the run; None: that of the folder.
        preset: Published training; None: what suits the machine.
        allows_stand_in: Whether the sandbox's toy may label where weights are missing.
    """

    folders: Folders
    into: Path
    classes: str | None = None
    name: str | None = None
    preset: str | None = None
    allows_stand_in: bool = False


def propose(request: Request, ask: Ask) -> Project:
    """Looks at the folders and proposes a project; writes nothing.

    Raises:
        ConfigError: It cannot be told what the classes are, or which label values are which; or
            the new files would lie among the images.
        DataError: A folder is missing or has no image.
    """
    _check_apart(request)
    found = look(request.folders)
    seen = look_at(found.labels)
    own = _classes(request, found, seen, ask)
    if problems := [f"{path}: {text}" for path, text in seen.problems.items()]:
        count = f"{len(problems)} label file{'s'[: len(problems) != 1]}"
        found.findings.append(f"{count} cannot be used, first: {problems[0]}")
    if seen.count:
        meanings = ", ".join(
            f"{value} = {name} ({seen.shares.get(value, 0):.0%})"
            for value, name in own.meanings.items()
        )
        found.findings.append(f"label files, with shares of pixels: {meanings}")
    has_labeled = any(entry.role == "labeled" for entry in found.sources.values())
    return Project(
        name=request.name or _run_name(request.folders.data),
        data=near(request.folders.data, request.into),
        sources=_with_classes(found, own),
        classes=own,
        labeler=clip_weights(request.into),
        allows_stand_in=request.allows_stand_in,
        training=training(request.preset, seen.short_side_px) if has_labeled else None,
        lists=found.lists,
        findings=[*found.findings, *own.remarks],
    )


def write(project: Project, into: Path) -> list[Path]:
    """Writes the files of a project; the config comes last.

    Raises:
        StorageError: One of them is there already; nothing is written.
    """
    files = {into / path: text.encode() for path, text in project.files().items()}
    if there := [str(path) for path in files if path.exists()]:
        what = f"{'these files are' if there[1:] else 'this file is'} there already"
        fix = "nothing was written; choose another folder with --into, or move the files away"
        raise StorageError(what, where=", ".join(there), fix=fix)
    for path, content in files.items():
        storage.write_bytes(path, content)
    return [*files]


def summarize(project: Project, console: Console) -> None:
    """Prints what was found and assumed."""
    for line in project.findings:
        console.note(line)
    for name, entry in project.sources.items():
        console.note(f"{name} ({entry.role}): {entry.comment}")
    if project.training is not None:
        console.note(f"train: {project.training.why}")
    if project.roles() & {"ood", "unlabeled"}:
        console.note(f"labeler: dense_clip, {project.labeler.model}; {project.labeler.why}")


def _check_apart(request: Request) -> None:
    """Refuses to put results among the images, where the next run would take them for images."""
    for folder in (request.folders.data, request.folders.val, request.folders.web):
        if folder is not None and request.into.resolve().is_relative_to(folder.resolve()):
            what = "the new files, and later the results, would lie among the images"
            fix = "call it in another folder, such as the one above, or name one with --into"
            raise ConfigError(what, where=f"{request.into.resolve()} in {folder}", fix=fix)


def _classes(request: Request, found: Found, seen: LabelsSeen, ask: Ask) -> Classes:
    asked: Mapping[str, Sequence[str]]
    if request.classes is not None:
        asked = class_lists.parsed(request.classes)
    elif found.names:
        asked = {name: () for name, _ in found.names.most_common()}
    elif not (asked := class_lists.classes_beside(request.folders.data)):
        held = f" (the label files hold {', '.join([*seen.shares][:20])})" if seen.count else ""
        answer = ask(f"Names of the classes, with commas{held}", "")
        if not answer.strip():
            fix = 'name them: --classes "car, person"'
            where = str(request.folders.data)
            raise ConfigError("nothing tells what the classes are", where=where, fix=fix)
        asked = class_lists.parsed(answer)
    try:
        return class_lists.assigned(asked, seen)
    except ConfigError as error:
        answer = ask(f"{error.what} Write NAME=VALUE, with commas", "")
        if not answer.strip():
            raise
        return class_lists.assigned(class_lists.parsed(answer), seen)


def _with_classes(found: Found, own: Classes) -> dict[str, SourceEntry]:
    """The sources, told how their label files or annotations name the classes."""
    known = {name.lower() for name in own.names}
    others = {name: None for name in sorted(found.names) if name.lower() not in known}
    if others:
        listed = ", ".join(others)
        found.findings.append(f"ignored, as no class has these names of annotations: {listed}")
    return {
        name: replace(
            entry,
            has_scheme=entry.has_scheme and bool(own.scheme),
            source={**entry.source, **({"names": others} if others and entry.is_annotated else {})},
        )
        for name, entry in found.sources.items()
    }


def _run_name(folder: Path) -> str:
    plain = re.sub("[^a-z0-9_-]+", "-", folder.resolve().name.lower()).strip("-")
    return plain or "run"
