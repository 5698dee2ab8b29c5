"""What `init` proposes: the sources with their roles, the classes, and the text of its files."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import yaml

from stages.init.classes import BACKGROUND, Classes
from stages.init.machine import ClipWeights, Training
from stages.train import preset

CONFIG = "maskmill.yaml"
"""The file of the config."""
VOCABULARY = "vocabulary.yaml"
"""The file of the vocabulary."""
SCHEME = "own"
"""Name of the label scheme that `init` writes."""
LABELER = "clip"
"""Name of the labeler that `init` writes."""
_SURROUNDINGS = (
    *("sky", "ground", "grass", "road", "water", "snow", "sand", "wall", "floor", "ceiling"),
    *("building", "tree", "mountain", "table", "furniture", "food", "sign", "text", "toy"),
)
"""What many photos show around things."""


@dataclass(frozen=True)
class SourceEntry:
    """A source of images.

    Attributes:
        role: Use of its images.
        source: Its keys.
        has_scheme: Whether its label files are read by the scheme that `init` writes.
        comment: What it is, in a few words.
    """

    role: str
    source: Mapping[str, Any]
    has_scheme: bool = False
    comment: str = ""

    @property
    def is_annotated(self) -> bool:
        """Whether it reads the annotations of another tool."""
        return self.role in ("labeled", "val") and self.source["name"] not in ("folder", "list")


@dataclass(frozen=True)
class Project:
    """All that `init` writes.

    Attributes:
        name: Name of the run.
        data: Folder that the sources' paths start from, as the config spells it.
        sources: Sources by name.
        classes: The classes.
        labeler: The CLIP that labels.
        allows_stand_in: Whether the sandbox's toy may label where the weights are missing.
        training: Keys of `train`; None without labeled images.
        lists: Text files of ids that the sources name, by path from the config.
        findings: What was found and assumed, in lines.
    """

    name: str
    data: str
    sources: Mapping[str, SourceEntry]
    classes: Classes
    labeler: ClipWeights
    allows_stand_in: bool
    training: Training | None
    lists: Mapping[str, Sequence[str]] = field(default_factory=dict)
    findings: Sequence[str] = ()

    def files(self) -> dict[str, str]:
        """The text of each file, by its path in the folder of the config; the config comes last."""
        lists = {path: "".join(f"{line}\n" for line in own) for path, own in self.lists.items()}
        return {
            **lists,
            VOCABULARY: self._rendered("vocabulary.yaml.jinja"),
            CONFIG: self._rendered("maskmill.yaml.jinja"),
        }

    def roles(self) -> set[str]:
        """The roles of all sources."""
        return {entry.role for entry in self.sources.values()}

    def _rendered(self, template: str) -> str:
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(Path(__file__).parent),
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
            undefined=jinja2.StrictUndefined,
            autoescape=False,  # YAML, whose values go through `plain`
        )
        environment.filters["plain"] = _plain
        return environment.get_template(template).render(
            project=self,
            roles=self.roles(),
            colors=_colors(self.classes.names),
            background_concepts=self._background_concepts(),
            label_sources=self._label_sources(),
            scheme=SCHEME,
        )

    def _label_sources(self) -> list[dict[str, Any]]:
        """The label sources of the training on all images: the preset's, and the stored labels."""
        if self.training is None:
            return []
        online = preset.expanded(self.training.keys)["label_sources"]
        found = online if "unlabeled" in self.roles() else []
        if "ood" in self.roles():
            found = [*found, {"name": "stored", "labeler": LABELER, "weight": 0.5}]
        return found

    def _background_concepts(self) -> list[str]:
        own = {name.lower() for name in self.classes.names}
        return [concept for concept in _SURROUNDINGS if concept not in own]


def _plain(value: object) -> str:
    """A value as YAML on one line."""
    text = yaml.safe_dump(
        value, default_flow_style=True, width=2**30, allow_unicode=True, sort_keys=False
    )
    return text.removesuffix("\n").removesuffix("\n...")


def _colors(names: Sequence[str]) -> list[str]:
    """A colour for each class, far apart; black for the background."""
    found = []
    for number, name in enumerate(names):
        if name == BACKGROUND:
            found.append("#000000")
            continue
        hue = number * 0.618034 % 1  # the golden section keeps neighbours apart
        parts = colorsys.hsv_to_rgb(hue, (0.9, 0.6)[number % 2], (0.95, 0.75)[number // 2 % 2])
        found.append("#" + "".join(f"{round(255 * part):02x}" for part in parts))
    return found
