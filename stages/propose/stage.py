"""Propose: SAM's masks of everything in the images of its roles, shard by shard, once.

No class name is asked here, so that another class list leaves the masks as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path

import pyarrow.compute as pc

from pipeline.config.config_section import Facts, Section
from pipeline.engine.stage import Context, Stage, Unit
from pipeline.engine.staleness import count_image_changes
from pipeline.records import arrays, manifest, tables
from pipeline.records.rows import ProposalsRow
from pipeline.records.sharded_table import ShardedTable
from stages.ingest.output import read_shards
from stages.propose.config import SANDBOX, ProposeConfig


class ProposeStage(Stage):
    """Fills the proposals manifest."""

    name = "propose"
    version = 1
    table = tables.PROPOSALS
    Config = ProposeConfig
    needs = ("ingest",)
    picks_shards = True

    def __init__(self, section: Section, context: Context) -> None:
        super().__init__(section, context)
        assert isinstance(section, ProposeConfig)
        self._section = section

    def plan(self) -> list[Unit]:
        """A unit a shard that holds images of the roles."""
        digests = self._images.digests(["row", "image_id"])
        return [
            Unit(
                f"shard {shard}",
                self._folder / manifest.part_name(shard),
                {**self.mask_facts, "inputs.images": digests[shard]},
                shard=shard,
            )
            for shard in self._images.shards
        ]

    def run(self, units: Sequence[Unit]) -> None:
        """Proposes masks on the cluster and commits each shard's part."""
        from pipeline.engine.run_shards import ShardWork, run_shards
        from stages.propose.task import ShardTask, propose_shard

        config, console = self.context.config, self.context.console
        if self._section.model == SANDBOX and config.vocabulary.name != SANDBOX:
            what = "the sandbox's SAM was trained on drawn scenes and knows nothing of real photos"
            console.warn(f"propose: {what}; use vit_b, vit_l or vit_h")
        if config.run.cluster.address is None:  # workers elsewhere fetch their own
            self._section.checkpoint(console)
        weights = manifest.digest(self._section.weights_facts())

        def task(unit: Unit) -> ShardTask:
            assert unit.shard is not None
            images = self._images[unit.shard].to_pylist()
            return ShardTask(unit.shard, images, self._section, weights)

        work = [
            ShardWork(unit, self._images[unit.shard].num_rows, partial(task, unit))
            for unit in units
        ]
        plain = self._section.model_dump(mode="json")

        def commit(unit: Unit, rows: list[ProposalsRow]) -> None:
            failed = sum(row["status"] == "failed" for row in rows)
            table = tables.PROPOSALS.rows(rows)
            manifest.write_part(unit.part, table, unit.facts, plain, failed=failed)

        run_shards(self.name, work, propose_shard, commit, self.context)

    def image_changes(self, unit: Unit) -> dict[str, int]:
        """See `Stage.image_changes`."""
        return count_image_changes(unit, tables.PROPOSALS, self._images)

    def orphans(self) -> list[Path]:
        """See `Stage.orphans`."""
        planned = {manifest.part_name(shard) for shard in self._images.shards}
        parts = manifest.part_names(self._folder)
        return [self._folder / part for part in parts if part not in planned]

    def summarize(self) -> None:
        """How many masks there are, and how long they took."""
        columns = ["num_masks", "seconds", "status"]
        rows = manifest.read(self._folder, tables.PROPOSALS, columns)
        good = arrays.having(rows, "status", "ok")
        masks = pc.mean(good["num_masks"]).as_py() or 0
        seconds = pc.sum(good["seconds"]).as_py()
        speed = f", {good.num_rows / seconds:.1f} images/s" if seconds else ""
        text = f"{good.num_rows} images, {masks:.1f} masks an image{speed}; in {self._folder}"
        self.context.console.note(f"propose: {text}")
        if failed := rows.num_rows - good.num_rows:
            self.context.console.warn(f"{failed} images could no longer be read, no masks of them")

    @cached_property
    def _folder(self) -> Path:
        return self.context.config.manifests / tables.PROPOSALS.name

    @cached_property
    def mask_facts(self) -> Facts:
        """What the masks of an image depend on beside the image.

        Raises:
            WeightsError: The model's files are missing.
        """
        section = self._section
        return {**self.version_facts, **section.facts(self.name), **section.weights_facts()}

    @cached_property
    def _images(self) -> ShardedTable:
        return read_shards(self.context.config, self._section.roles)
