"""Sandbox: draws the embedded world into the run's data folder, as if a user had put it there.

Label files are written for labeled, val and test images only, unless the config asks for those of
the web images too: what the labeler and the student are not to know is not on disk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from pipeline.config.config_section import Section
from pipeline.engine.stage import Context, Stage, Unit
from pipeline.errors import ConfigError
from pipeline.files import storage
from pipeline.records import manifest, tables
from stages.sandbox.world.names import TARGETS

if TYPE_CHECKING:
    from stages.sandbox.world.layout import Domain
    from stages.sandbox.world.world import Scene

_SCENES_A_ROLE = 100_000
Count = Annotated[int, Field(ge=1, le=_SCENES_A_ROLE)]


class SandboxConfig(Section):
    """The section `sandbox`: how many scenes to draw for each role."""

    seed: Annotated[int, Field(ge=1, lt=2**63)] = 1
    """Which world. Seed 0 is refused: the tiny CLIP was trained on its web scenes."""
    long_side_px: Annotated[int, Field(ge=32, le=1024)] | None = None
    """Longer side of the images in pixels. Default: 128, and of the web 96 to 320."""
    spurious_cues: tuple[Literal["labeled", "unlabeled", "ood", "val", "test"], ...] = ()
    """Roles in whose scenes boats are on water and buses on road, always and alone there."""
    ood_masks: bool = False
    """Whether to write label files of the web images too, to see what perfect labels would give."""
    labeled: Count = 8
    """Scenes of the target domain with label files."""
    unlabeled: Count = 256
    """Scenes of the target domain without."""
    ood: Count = 320
    """Web scenes, without label files."""
    val: Count = 64
    """Labeled scenes to choose settings on."""
    test: Count = 256
    """Labeled scenes that nothing is chosen on."""


_FIRST_INDEX = {  # no two roles of a domain draw the same scene
    "labeled": 0,
    "unlabeled": _SCENES_A_ROLE,
    "ood": 0,
    "val": 2 * _SCENES_A_ROLE,
    "test": 3 * _SCENES_A_ROLE,
}
_WITH_LABELS = ("labeled", "val", "test")


class SandboxStage(Stage):
    """Fills `<data>/<role>/images` and `masks`, and the scenes manifest."""

    name = "sandbox"
    version = 2
    table = tables.SCENES
    Config = SandboxConfig

    def __init__(self, section: Section, context: Context) -> None:
        super().__init__(section, context)
        assert isinstance(section, SandboxConfig)
        self._section = section

    def plan(self) -> list[Unit]:
        """A unit a role.

        Raises:
            ConfigError: The config sets a data folder; drawing anew would empty the user's.
        """
        config = self.context.config
        if config.run.data is not None:
            what = "the sandbox draws into a folder of its own"
            fix = "remove the key `data`, or the section `sandbox`"
            raise ConfigError(what, where=f"{config.path}: data", fix=fix)
        return [self._unit(role) for role in _FIRST_INDEX]

    def run(self, units: Sequence[Unit]) -> None:
        """Draws the scenes of the roles that are not fresh, each role anew."""
        counts = {unit.name: int(getattr(self._section, unit.name)) for unit in units}
        total = sum(counts.values())
        with self.context.console.progress("sandbox", total, "scenes") as progress:
            for unit in units:
                unit.part.unlink(missing_ok=True)  # it says nothing of a folder half drawn
                if (folder := self.context.config.data / unit.name).is_dir():
                    storage.remove(folder)
                rows = []
                for number, scene in enumerate(self._scenes(unit.name, counts[unit.name])):
                    rows.append(self._save(unit.name, number, *scene))
                    progress.advance()
                plain = self._section.model_dump(mode="json")
                manifest.write_part(unit.part, tables.SCENES.rows(rows), unit.facts, plain)

    def _unit(self, role: str) -> Unit:
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
        return Unit(role, folder / f"part-{role}.parquet", facts, outputs)

    def _has_masks(self, role: str) -> bool:
        return role in _WITH_LABELS or (role == "ood" and self._section.ood_masks)

    def _scenes(self, role: str, count: int) -> Iterator[tuple[int, Scene]]:
        """Indices and scenes of a role; labeled ones show each target in turn.

        A person who labels few images sees to it that every class is in them.
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
