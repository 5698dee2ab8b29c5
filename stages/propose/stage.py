"""Propose: SAM's masks of everything in the images of its roles, shard by shard, once.

No class name is asked here, so that another class list leaves the masks as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from pipeline import manifest
from pipeline.errors import DataError
from pipeline.section import Facts, Section
from pipeline.stage import Context, Stage, Unit
from stages.ingest.output import read_images
from stages.propose.config import SANDBOX, ProposeConfig
from stages.propose.output import proposals_part

Rows = list[dict[str, Any]]


class ProposeStage(Stage):
    """Fills the proposals manifest."""

    name = "propose"
    version = 1
    Config = ProposeConfig
    needs = ("ingest",)

    def __init__(self, section: Section, context: Context) -> None:
        super().__init__(section, context)
        assert isinstance(section, ProposeConfig)
        self._section = section

    def plan(self) -> list[Unit]:
        """A unit a shard that holds images of the roles."""
        return [self._unit(shard, images) for shard, images in self._shards.items()]

    def run(self, units: Sequence[Unit]) -> None:
        """Proposes masks on the cluster and commits each shard's part."""
        from pipeline.cluster import map_in_order
        from stages.propose.shard import ShardTask, propose_shard

        config, console = self.context.config, self.context.console
        if self._section.model == SANDBOX and config.vocabulary.name != SANDBOX:
            what = "the sandbox's SAM was trained on drawn scenes and knows nothing of real photos"
            console.warn(f"propose: {what}; use vit_b, vit_l or vit_h")
        weights = manifest.digest(self._section.weights_facts())
        wanted = {unit.part: unit for unit in units}
        work = [
            (wanted[part], ShardTask(shard, images, self._section, weights))
            for shard, images in self._shards.items()
            if (part := proposals_part(config.manifests, shard)) in wanted
        ]
        plain = self._section.model_dump(mode="json")
        total = sum(len(task.images) for _, task in work)
        done = map_in_order(config.run.cluster, propose_shard, [task for _, task in work])
        with console.progress("propose", total, "images") as progress:
            for (unit, _), rows in zip(work, done, strict=True):
                table = manifest.PROPOSALS.rows(rows)
                manifest.write_part(unit.part, table, unit.facts, plain)
                progress.advance(len(rows))

    def summarize(self) -> None:
        """How many masks there are, and how long they took."""
        folder = self.context.config.manifests / manifest.PROPOSALS.name
        columns = ["area", "seconds", "status"]
        rows = manifest.read(folder, manifest.PROPOSALS, columns).to_pylist()
        good = [row for row in rows if row["status"] == "ok"]
        masks = sum(len(row["area"]) for row in good) / max(1, len(good))
        seconds = sum(row["seconds"] for row in good)
        speed = f", {len(good) / seconds:.1f} images/s" if seconds else ""
        text = f"propose: {len(good)} images, {masks:.1f} masks an image{speed}; in {folder}"
        self.context.console.note(text)
        if failed := len(rows) - len(good):
            self.context.console.warn(f"{failed} images could no longer be read, no masks of them")

    @cached_property
    def mask_facts(self) -> Facts:
        """What the masks of an image depend on beside the image.

        Raises:
            WeightsError: The model's files are missing.
        """
        section = self._section
        return {**self.version_facts, **section.facts(self.name), **section.weights_facts()}

    def _unit(self, shard: int, images: Rows) -> Unit:
        content = [[row["row"], row["image_id"]] for row in images]
        facts = {**self.mask_facts, "inputs.images": manifest.digest(content)}
        return Unit(f"shard {shard}", proposals_part(self.context.config.manifests, shard), facts)

    @cached_property
    def _shards(self) -> dict[int, Rows]:
        """Good images of the roles, and the labeled ones, by shard and in order."""
        roles = {*self._section.roles, "labeled"}
        shards: dict[int, Rows] = {}
        for row in read_images(self.context.config.manifests, roles):
            shards.setdefault(row["shard"], []).append(row)
        if not shards:
            what = f"no image of role {' or '.join(sorted(roles))}"
            where = f"{self.context.config.path}: ingest.sources"
            raise DataError(what, where=where, fix="add a source of such images")
        return shards
