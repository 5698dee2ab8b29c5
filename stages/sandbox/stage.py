"""Sandbox: draws the embedded world into the run's data folder, as if a user had put it there.

Label files are written for labeled, val and test images only: what the labeler and the student are
not to know is not on disk.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Annotated

import numpy as np
from PIL import Image
from pydantic import Field

from pipeline import manifest
from pipeline.section import Section
from pipeline.stage import Context, Stage, Unit
from stages.sandbox.layout import Domain
from stages.sandbox.world import Scene, render

Count = Annotated[int, Field(ge=1)]


class SandboxConfig(Section):
    """The section `sandbox`: how many scenes to draw for each role."""

    seed: Annotated[int, Field(ge=1)] = 1
    """Which world. Seed 0 is refused: the tiny CLIP was trained on its web scenes."""
    long_side_px: Annotated[int, Field(ge=32, le=1024)] = 128
    """Longer side of the images, in pixels."""
    labeled: Count = 16
    """Scenes of the target domain with label files."""
    unlabeled: Count = 256
    """Scenes of the target domain without."""
    ood: Count = 320
    """Web scenes, without label files."""
    val: Count = 64
    """Labeled scenes to choose settings on."""
    test: Count = 256
    """Labeled scenes that nothing is chosen on."""


_FIRST_INDEX = {"labeled": 0, "unlabeled": 100_000, "ood": 0, "val": 200_000, "test": 300_000}
_WITH_LABELS = ("labeled", "val", "test")


class SandboxStage(Stage):
    """Fills `<data>/<role>/images` and `masks`, and the scenes manifest."""

    name = "sandbox"
    version = 1
    Config = SandboxConfig

    def __init__(self, section: Section, context: Context) -> None:
        super().__init__(section, context)
        assert isinstance(section, SandboxConfig)
        self._section = section

    def plan(self) -> list[Unit]:
        """A unit a role."""
        return [self._unit(role) for role in _FIRST_INDEX]

    def run(self, units: Sequence[Unit]) -> None:
        """Draws the scenes of the roles that are not fresh, each role anew."""
        counts = {unit.name: int(getattr(self._section, unit.name)) for unit in units}
        total = sum(counts.values())
        with self.context.console.progress("sandbox", total, "scenes") as progress:
            for unit in units:
                shutil.rmtree(self.context.config.data / unit.name, ignore_errors=True)
                rows = []
                for number in range(counts[unit.name]):
                    rows.append(self._draw(unit.name, number))
                    progress.advance()
                plain = self._section.model_dump(mode="json")
                manifest.write_part(unit.part, manifest.SCENES.rows(rows), unit.facts, plain)

    def _unit(self, role: str) -> Unit:
        folder = self.context.config.manifests / manifest.SCENES.name
        facts = {
            **self.version_facts,
            "sandbox.seed": self._section.seed,
            "sandbox.long_side_px": self._section.long_side_px,
            f"sandbox.{role}": getattr(self._section, role),
        }
        outputs = (self.context.config.data / role / "images",)
        return Unit(role, folder / f"part-{role}.parquet", facts, outputs)

    def _draw(self, role: str, number: int) -> dict[str, object]:
        domain: Domain = "web" if role == "ood" else "id"
        index = _FIRST_INDEX[role] + number
        scene = render(domain, self._section.seed, index, self._section.long_side_px)
        folder = self.context.config.data / role
        image = folder / "images" / f"{number:05d}.{'jpg' if domain == 'web' else 'png'}"
        _write(image, _encoded(scene, image.suffix))
        if role in _WITH_LABELS:
            _write(folder / "masks" / f"{number:05d}.png", _encoded_classes(scene))
        return {
            "uri": image.relative_to(self.context.config.data).as_posix(),
            "role": role,
            "domain": domain,
            "seed": self._section.seed,
            "index": index,
            "caption": scene.caption,
        }


def _encoded(scene: Scene, ending: str) -> bytes:
    buffer = BytesIO()
    if ending == ".jpg":
        Image.fromarray(scene.image).save(buffer, "JPEG", quality=90)
    else:
        Image.fromarray(scene.image).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _encoded_classes(scene: Scene) -> bytes:
    buffer = BytesIO()
    Image.fromarray(scene.classes.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
