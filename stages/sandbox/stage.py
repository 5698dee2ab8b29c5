"""Sandbox: draws images and label files into the run's data folder, in place of a user's photos.

Only labeled, val and test images get label files, and web images if the config asks for it, so that
labelers and students cannot read any other truth.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline import stopping
from pipeline.config.config_section import Section
from pipeline.engine.stage import Context, Stage, Unit
from pipeline.errors import ConfigError
from pipeline.files import storage
from pipeline.records import tables
from stages.sandbox.config import SCENES_A_ROLE, SandboxConfig
from stages.sandbox.world.names import TARGETS

if TYPE_CHECKING:
    from stages.sandbox.world.layout import Domain
    from stages.sandbox.world.world import Scene

_FIRST_INDEX = {  # two roles of a domain must not draw the same scene
    "labeled": 0,
    "unlabeled": SCENES_A_ROLE,
    "ood": 0,
    "val": 2 * SCENES_A_ROLE,
    "test": 3 * SCENES_A_ROLE,
}
_WITH_LABELS = ("labeled", "val", "test")


@dataclass(frozen=True)
class RoleKey:
    """Key of a unit that is all scenes of a role."""

    role: str

    def __str__(self) -> str:
        return self.role


class SandboxStage(Stage[RoleKey]):
    """Fills `<data>/<role>/images` and `masks`, and the scenes manifest."""

    name = "sandbox"
    version = 2
    table = tables.SCENES
    Config = SandboxConfig
    feeds = ("ingest",)

    def __init__(self, section: Section, context: Context) -> None:
        super().__init__(section, context)
        assert isinstance(section, SandboxConfig)
        self._section = section

    def plan(self) -> list[Unit[RoleKey]]:
        """One unit for each role.

        Raises:
            ConfigError: The config sets a data folder; drawing would delete the user's images.
        """
        config = self.context.config
        if config.run.data is not None:
            what = "the sandbox needs a data folder of its own"
            fix = "remove the key `data`, or the section `sandbox`"
            raise ConfigError(what, where=f"{config.path}: data", fix=fix)
        return [self._unit(role) for role in _FIRST_INDEX]

    def run(self, units: Sequence[Unit[RoleKey]]) -> None:
        """Draws the scenes of the roles that are not fresh, each role as a whole."""
        counts = {unit.key: int(getattr(self._section, unit.key.role)) for unit in units}
        total = sum(counts.values())
        with self.context.console.progress("sandbox", total, "scenes") as progress:
            for unit in units:
                storage.remove(unit.part)  # an interrupted run must not look finished
                role = unit.key.role
                if (folder := self.context.config.data / role).is_dir():
                    storage.remove(folder)
                rows = []
                for number, scene in enumerate(self._scenes(role, counts[unit.key])):
                    stopping.check()
                    rows.append(self._save(role, number, *scene))
                    progress.advance()
                # Its outputs are folders, which users may add files to.
                self.commit(unit, tables.SCENES.rows(rows), files=())

    def _unit(self, role: str) -> Unit[RoleKey]:
        folder = self.context.config.manifests / tables.SCENES.name
        facts = {
            **self.version_facts,
            "sandbox.seed": self._section.seed,
            "sandbox.long_side_px": self._section.long_side_px,
            f"sandbox.{role}": getattr(self._section, role),
            "sandbox.spurious_cues": role in self._section.spurious_cues,
            "sandbox.masks": self._has_masks(role),
        }
        kinds = ("images", "masks") if self._has_masks(role) else ("images",)
        outputs = tuple(self.context.config.data / role / kind for kind in kinds)
        return Unit(RoleKey(role), folder / f"part-{role}.parquet", facts, outputs)

    def _has_masks(self, role: str) -> bool:
        return role in _WITH_LABELS or (role == "ood" and self._section.ood_masks)

    def _scenes(self, role: str, count: int) -> Iterator[tuple[int, Scene]]:
        """Yields indices and scenes of a role; labeled scenes contain each target in turn.

        A person who labels only a few images makes sure that every class occurs in them.
        """
        from stages.sandbox.world.world import render

        index = _FIRST_INDEX[role]
        for number in range(count):
            while True:
                scene = render(
                    _domain(role),
                    self._section.seed,
                    index,
                    long_side_px=self._section.long_side_px,
                    spurious_cues=role in self._section.spurious_cues,
                )
                index += 1
                if role != "labeled" or TARGETS[number % len(TARGETS)] in scene.tags:
                    break
            yield index - 1, scene

    def _save(self, role: str, number: int, index: int, scene: Scene) -> dict[str, object]:
        from stages.sandbox.world.encoding import encoded_classes, encoded_image

        domain = _domain(role)
        folder = self.context.config.data / role
        image = folder / "images" / f"{number:05d}.{'jpg' if domain == 'web' else 'png'}"
        storage.write_bytes(image, encoded_image(scene, image.suffix), durable=False)
        if self._has_masks(role):
            mask = folder / "masks" / f"{number:05d}.png"
            storage.write_bytes(mask, encoded_classes(scene), durable=False)
        return {
            "uri": storage.relative(image, self.context.config.data),
            "role": role,
            "domain": domain,
            "seed": self._section.seed,
            "index": index,
            "caption": scene.caption,
        }


def _domain(role: str) -> Domain:
    return "web" if role == "ood" else "id"
