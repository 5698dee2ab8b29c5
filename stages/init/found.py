"""What `init` found: the folders it was given, and the sources it proposes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from stages.init.project import SourceEntry


@dataclass(frozen=True)
class Folders:
    """The folders that a new project starts from.

    Attributes:
        data: The folder of the user's own images.
        masks: Folder of their label files, if they are not found below `data`.
        val: Folder of images and label files to score on.
        web: Folder of images from elsewhere, or of tar archives.
    """

    data: Path
    masks: Path | None = None
    val: Path | None = None
    web: Path | None = None


@dataclass
class Found:
    """What was found in the folders of a new project.

    Attributes:
        sources: Sources by name.
        lists: Lines of the lists that the sources name, by path from the config.
        labels: Label files.
        names: Of annotations: how many shapes have each name.
        findings: What was found, in lines.
    """

    sources: dict[str, SourceEntry] = field(default_factory=dict)
    lists: dict[str, list[str]] = field(default_factory=dict)
    labels: list[Path] = field(default_factory=list)
    names: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)
