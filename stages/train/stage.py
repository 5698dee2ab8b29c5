"""Train: a segmenter for each variant and seed, from labeled images and label sources."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config.config_section import Facts, Section
from pipeline.engine import torchrun
from pipeline.engine.fact_diff import fact_changes
from pipeline.engine.findings import Findings
from pipeline.engine.stage import Context, Stage, Unit
from pipeline.files import storage
from pipeline.records import part_file, tables
from pipeline.records.rows import MetricRow
from pipeline.stopping import Stopped
from stages.models.segmenters.protocol import protocol_of
from stages.pseudolabel.output import labels_redone
from stages.train.check import TrainCheck
from stages.train.config import TrainConfig
from stages.train.inputs import TrainInputs
from stages.train.output import (
    TrainingFiles,
    TrainingKey,
    training_files,
    training_part,
    unfinished_trainings,
)
from stages.train.scoring_check import check_protocols

if TYPE_CHECKING:
    import torch


_LIBRARIES = ("torch", "timm", "segmentation-models-pytorch", "open_clip_torch")
"""Packages whose versions may change weights."""


class TrainStage(Stage[TrainingKey]):
    """Fills artifacts/<run>/checkpoints and the training rows of the metrics manifest."""

    name = "train"
    version = 4
    table = tables.METRICS
    Config = TrainConfig
    needs = ("ingest", "pseudolabel")
    keeps_superseded = True

    def __init__(self, section: Section, context: Context) -> None:
        super().__init__(section, context)
        assert isinstance(section, TrainConfig)
        self._section = section
        self._planned: list[Unit[TrainingKey]] = []

    def check(self, findings: Findings, pending: Collection[str]) -> None:
        """See `Stage.check`: keys; once they are made images and label files, and stored labels."""
        check = TrainCheck(self.context.config, self._section, findings)
        check.keys()
        check_protocols(self.context.config, self._section, findings)
        if "ingest" not in pending:
            check.images()
        else:
            check.schemes()
        if not {"ingest", "pseudolabel"} & {*pending}:
            check.labels()
        check.results()

    def rehearse(
        self, findings: Findings, units: Sequence[Unit[TrainingKey]] | None, *, downloads: bool
    ) -> None:
        """See `Stage.rehearse`: builds each network, and passes crops through its shapes."""
        from stages.train.rehearsal import rehearse

        keys = self._keys if units is None else [unit.key for unit in units]
        variants = {key.variant: self._section.variants[key.variant] for key in keys}
        rehearse(self.context.config, variants, findings, downloads=downloads)

    def plan(self) -> list[Unit[TrainingKey]]:
        """One unit for each variant and seed."""
        inputs = TrainInputs(self.context.config)
        self._planned = [self._unit(key, inputs) for key in self._keys]
        return self._planned

    def run(self, units: Sequence[Unit[TrainingKey]]) -> None:
        """Does the trainings that are not fresh, each from its last checkpoint."""
        if torchrun.world() > 1:
            self._train_together([unit.key for unit in units])
            return
        for unit in units:
            self._train(unit)

    def join_leader(self) -> None:
        """Trains with the leader, if it has trainings to do."""
        if torchrun.world() == 1:
            return
        from stages.train.loop.divergence import DivergedError

        with suppress(DivergedError):  # the leader reports it
            self._train_together([])

    def remarks(self) -> list[str]:
        """Unfinished trainings of other keys, which are kept; asked after `plan`."""
        return [*self._remarks()]

    def garbage(self) -> list[Path]:
        """Parts and folders of trainings that neither the config nor a part names.

        The checkpoint of a finished training is garbage too.
        """
        config, plan = self.context.config, self.plan()
        parts = {unit.part for unit in plan}
        folders = {self._files(unit).folder for unit in plan}
        for unit in plan:
            if (facts := part_file.read_facts(unit.part)) is not None:
                folders.add(training_files(config, unit.key, facts).folder)
        metrics = config.manifests / tables.METRICS.name
        found = [
            path for path in storage.glob(metrics, "part-train-*.parquet") if path not in parts
        ]
        checkpoints = config.artifacts / "checkpoints"
        found += [path for path in storage.glob(checkpoints, "*/seed-*/*") if path not in folders]
        found += storage.glob(config.artifacts, "tensorboard")  # of versions that kept events there
        done = (unit for unit in plan if part_file.read_facts(unit.part) == unit.facts)
        return found + [path for unit in done for path in unit.resumable if path.exists()]

    @cached_property
    def _keys(self) -> list[TrainingKey]:
        variants = self._section.variants.items()
        return [TrainingKey(name, seed) for name, variant in variants for seed in variant.seeds]

    def _files(self, unit: Unit[TrainingKey]) -> TrainingFiles:
        return training_files(self.context.config, unit.key, unit.facts)

    def _unit(self, key: TrainingKey, inputs: TrainInputs) -> Unit[TrainingKey]:
        variant, vocabulary = self._section.variants[key.variant], self.context.config.vocabulary
        facts: Facts = {
            **self.version_facts,
            **variant.facts(f"train.variants.{key.variant}"),
            "train.seed": key.seed,
            **variant.model.create().vocabulary_facts(vocabulary),
        }
        roles = ["labeled"]
        if variant.validate_every is not None:
            roles.append("val")
            facts |= protocol_of(self.context.config, variant.published_protocol).facts("evaluate")
        for role in roles:
            schemes = inputs.images(role)["label_scheme"].unique().to_pylist()
            facts |= vocabulary.schemes_facts(schemes)
            facts[f"inputs.{role} images"] = inputs.images_digest(role, ("image_id", "mask_id"))
        for source in variant.label_sources:
            facts |= source.create().inputs(self.context.config)
        for role in variant.roles:
            facts[f"inputs.{role} images"] = inputs.images_digest(role, ("image_id",))
            for labeler in variant.labelers(role):
                inputs.labeled_by(role, [labeler])
                digest = inputs.labels_digest(role, labeler)
                facts[f"inputs.{role} labels of {labeler}"] = digest
                manifests, what = self.context.config.manifests, f"{role} labels of {labeler}"
                facts |= labels_redone(manifests, labeler, [role], what)
        files = training_files(self.context.config, key, facts)
        best = [] if variant.validate_every is None else [files.best]
        return Unit(
            key,
            training_part(self.context.config, key),
            facts,
            outputs=(files.weights, *best),
            resumable=(files.state,),
            versions=part_file.installed(_LIBRARIES),
        )

    def _remarks(self) -> Iterator[str]:
        for unit in self._planned:
            own = self._files(unit).folder
            for files, facts in unfinished_trainings(self.context.config, unit.key):
                if files.folder == own:
                    continue
                changes = ", ".join(change.text for change in fact_changes(unit.facts, facts))
                yield (
                    f"an unfinished training of {unit.key} with other keys is kept in "
                    f"{files.folder} ({changes}); `maskmill gc` removes it"
                )

    def _train_together(self, keys: Sequence[TrainingKey]) -> None:
        """Does the trainings that the leader names, in all processes of torchrun."""
        from stages.train import distributed

        device = next(iter(self._section.variants.values())).device
        with distributed.process_group(device) as own:
            keys = distributed.broadcast(keys)
            units = {unit.key: unit for unit in self.plan()} if keys else {}
            for key in keys:
                self._train(units[key], device=own)

    def _train(self, unit: Unit[TrainingKey], device: torch.device | None = None) -> None:
        from stages.models.device import pick_device
        from stages.train import distributed
        from stages.train.loop.build import TrainingJob, train

        config, key = self.context.config, unit.key
        variant, files = self._section.variants[key.variant], self._files(unit)
        device = device or pick_device(variant.device)
        is_leader = distributed.rank() == 0
        if is_leader:
            self.clear(unit)
            storage.write_bytes(files.facts, json.dumps(unit.facts, indent=1).encode())
        inputs = TrainInputs(config)
        try:
            logged = train(TrainingJob(self.context, variant, unit, files, device, inputs))
        except Stopped as stopped:
            done = stopped.done or "what is done stays done"
            raise Stopped(f"train: {key}: {done}") from stopped
        if is_leader:
            place: MetricRow = {"run": config.run.run, "kind": "training"}
            place |= {"variant": key.variant, "seed": key.seed}
            table = tables.METRICS.rows({**place, **row} for row in logged)
            self.commit(unit, table, plain=variant.model_dump(mode="json"))
