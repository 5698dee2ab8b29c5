"""Propose: SAM's masks of everything in the images of its roles, shard by shard, once.

It knows no class names, so that another class list leaves the masks as they are.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.compute as pc

from pipeline.config.config_section import Facts, Section
from pipeline.engine.findings import Findings
from pipeline.engine.shard_stage import ShardStage
from pipeline.engine.stage import Context, ShardKey, Unit
from pipeline.errors import error_context
from pipeline.records import arrays, manifest, part_file, tables
from pipeline.records.part_file import IMAGES_FACT
from pipeline.records.rows import ProposalsRow
from pipeline.records.sharded_table import ShardedTable
from stages.ingest.output import read_shards
from stages.models.embedded.models import SAM, SANDBOX, knows
from stages.propose.config import ProposeConfig
from stages.propose.output import VERSION, mask_facts

if TYPE_CHECKING:
    from stages.propose.task import ShardTask


_LIBRARIES = ("torch", "torchvision", "segment-anything")
"""Packages whose versions may change masks."""


class ProposeStage(ShardStage[ShardKey, "ShardTask", ProposalsRow]):
    """Fills the proposals manifest."""

    name = "propose"
    version = VERSION
    table = tables.PROPOSALS
    Config = ProposeConfig
    needs = ("ingest",)

    def __init__(self, section: Section, context: Context) -> None:
        super().__init__(section, context)
        assert isinstance(section, ProposeConfig)
        self._section = section
        self._folder = context.config.manifests / tables.PROPOSALS.name

    def check(self, findings: Findings, pending: Collection[str]) -> None:
        """See `Stage.check`: the weights, and once ingest is done the images."""
        if self._section.model == SANDBOX and not knows(self.context.config.vocabulary.name):
            where = self.context.config.where("propose", "model")
            findings.warn(f"{where}: {SAM.limits}; use vit_b, vit_l or vit_h")
        with findings.collecting():
            self._section.weights_facts()
        if "ingest" not in pending:
            with findings.collecting():
                _ = self.images

    def rehearse(
        self, findings: Findings, units: Sequence[Unit[ShardKey]] | None, *, downloads: bool
    ) -> None:
        """See `Stage.rehearse`: the device, and the download of the weights."""
        from stages.models.device import pick_device

        if self.context.config.run.cluster.address is not None:
            return  # workers elsewhere have other devices and files
        with findings.collecting(), error_context(self.context.config.where("propose")):
            pick_device(self._section.device)
        if downloads:
            with findings.collecting():
                self._section.checkpoint(self.context.console)

    def plan(self) -> list[Unit[ShardKey]]:
        """One unit for each shard that has images of the roles."""
        digests, facts = self.images.digests(self.folders[self._folder]), self._facts
        return [
            Unit(
                ShardKey(shard),
                self._folder / part_file.part_name(shard),
                {**facts, IMAGES_FACT: digests[shard]},
                shard=shard,
                versions=part_file.installed(_LIBRARIES),
            )
            for shard in self.images.shards
        ]

    def run(self, units: Sequence[Unit[ShardKey]]) -> None:
        """Proposes masks on the cluster and commits each shard's part."""
        from stages.propose.work import propose_shard

        self.run_units(units, propose_shard)

    def task(self, unit: Unit[ShardKey]) -> ShardTask:
        """See `ShardStage.task`."""
        from stages.propose.task import ShardTask

        weights = part_file.digest(self._section.weights_facts())
        shard = unit.key.shard
        images = self.images[shard].to_pylist()
        return ShardTask(shard, images, self._section, weights)

    def commit_rows(self, unit: Unit[ShardKey], rows: list[ProposalsRow]) -> None:
        """See `ShardStage.commit_rows`."""
        failed = sum(row["status"] == "failed" for row in rows)
        self.commit(unit, tables.PROPOSALS.rows(rows), failed=failed)

    def summarize(self) -> None:
        """Prints how many masks there are, and how long they took."""
        columns = ["num_masks", "seconds", "status"]
        rows = manifest.read(self._folder, tables.PROPOSALS, columns)
        good = arrays.having(rows, "status", "ok")
        masks = pc.mean(good["num_masks"]).as_py() or 0
        seconds = pc.sum(good["seconds"]).as_py()
        speed = f", {good.num_rows / seconds:.1f} images/s" if seconds else ""
        text = f"{good.num_rows} images, {masks:.1f} masks an image{speed}; in {self._folder}"
        self.context.console.note(f"propose: {text}")
        if failed := rows.num_rows - good.num_rows:
            count = f"{failed} image{'s'[: failed != 1]}"
            what = f"{count} could no longer be read and got no masks"
            self.context.console.warn(what)

    @cached_property
    def images(self) -> ShardedTable:
        """See `ShardStage.images`."""
        return read_shards(self.context.config, {*self._section.roles, "labeled"})

    @cached_property
    def folders(self) -> dict[Path, tuple[str, ...]]:
        """See `ShardStage.folders`."""
        return {self._folder: ("row", "image_id")}

    @cached_property
    def _facts(self) -> Facts:
        return mask_facts(self._section)
