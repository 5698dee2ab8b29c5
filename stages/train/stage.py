"""Train: a segmenter a variant and seed, from labeled images and whatever its sources label."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config.config_section import Facts, Section
from pipeline.engine import torchrun
from pipeline.engine.stage import Context, Stage, Unit
from pipeline.errors import ConfigError
from pipeline.records import manifest, tables
from pipeline.records.sharded_table import digest_rows
from stages.pseudolabel.stage import PseudolabelConfig
from stages.train.config import TrainConfig, VariantConfig
from stages.train.data.scale_check import Sizes
from stages.train.inputs import images_of, labeled_by, labels_of, protocol_of, total_steps
from stages.train.output import TrainingFiles

if TYPE_CHECKING:
    import torch


class TrainStage(Stage):
    """Fills artifacts/<run>/checkpoints and the training rows of the metrics manifest."""

    name = "train"
    version = 3
    table = tables.METRICS
    Config = TrainConfig
    needs = ("ingest", "pseudolabel")

    def __init__(self, section: Section, context: Context) -> None:
        super().__init__(section, context)
        assert isinstance(section, TrainConfig)
        self._section = section
        for name, variant in section.variants.items():
            for source in (choice.create() for choice in variant.label_sources):
                if source.labeler is not None:
                    self._check_labeler(name, source.labeler, source.config.on)
            self._check_processes(name, variant)

    def plan(self) -> list[Unit]:
        """A unit a variant and seed."""
        return [self._unit(name, seed) for name, seed in self._trainings.values()]

    def run(self, units: Sequence[Unit]) -> None:
        """Does the trainings that are not fresh, each from its last checkpoint."""
        sizes, fix = Sizes.of(self.context.config), "fit `scale`, or `evaluate.short_side_px`"
        for name in dict.fromkeys(self._trainings[unit.name][0] for unit in units):
            if what := sizes.mismatch(self._section.variants[name]):
                where = f"{self.context.config.path}: train.variants.{name}"
                self.context.console.warn(f"{where}: {what}; {fix}")
        if torchrun.world() > 1:
            self._train_together([unit.name for unit in units])
            return
        for unit in units:
            self._train(unit, *self._trainings[unit.name])

    def dismiss(self) -> None:
        """See `Stage.dismiss`."""
        if torchrun.world() > 1:
            self._train_together([])

    def follow(self) -> None:
        """Trains with the leader what it says."""
        from stages.train.loop.divergence import DivergedError

        with suppress(DivergedError):  # the leader tells of it
            self._train_together([])

    def garbage(self) -> list[Path]:
        """Parts and checkpoints of trainings that the config has not; states of finished ones."""
        plan = self.plan()
        parts = {unit.part for unit in plan}
        files = [self._files(*key) for key in self._trainings.values()]
        folders = {own for each in files for own in (each.folder, each.events)}
        metrics = self.context.config.manifests / tables.METRICS.name
        found = [p for p in metrics.glob("part-train-*.parquet") if p not in parts]
        for kind in ("checkpoints", "tensorboard"):
            of_kind = (self.context.config.artifacts / kind).glob("*/seed-*")
            found += [path for path in of_kind if path not in folders]
        done = (unit for unit in plan if manifest.read_facts(unit.part) == unit.facts)
        return found + [path for unit in done for path in unit.unfinished if path.exists()]

    def weights(self, variant: str, seed: int) -> Path:
        """The file that the training of a variant ends with."""
        return self._files(variant, seed).weights

    def best_weights(self, variant: str, seed: int) -> Path | None:
        """The file with the weights that were best on val; None where none are looked for."""
        if self._section.variants[variant].validate_every is None:
            return None
        return self._files(variant, seed).best

    def best_step(self, variant: str, seed: int) -> int:
        """How many steps the weights of `best_weights` have behind them."""
        rows = manifest.read_part(self.part(variant, seed), tables.METRICS).to_pylist()
        scores = [r for r in rows if r["split"] == "val" and r["name"] == "miou"]
        return int(max(scores, key=lambda row: row["value"])["step"])

    def steps(self, variant: str) -> int:
        """Length of the trainings of a variant."""
        return total_steps(self.context.config, self._section.variants[variant])

    def part(self, variant: str, seed: int) -> Path:
        """The part of the metrics manifest that the training of a variant commits."""
        folder = self.context.config.manifests / tables.METRICS.name
        return folder / f"part-train-{variant}-seed-{seed}.parquet"

    @property
    def _trainings(self) -> dict[str, tuple[str, int]]:
        """Variant and seed of each unit, by its name."""
        variants = self._section.variants.items()
        return {f"{name} seed {n}": (name, n) for name, variant in variants for n in variant.seeds}

    def _files(self, variant: str, seed: int) -> TrainingFiles:
        artifacts, place = self.context.config.artifacts, Path(variant, f"seed-{seed}")
        return TrainingFiles(artifacts / "checkpoints" / place, artifacts / "tensorboard" / place)

    def _unit(self, name: str, seed: int) -> Unit:
        variant, vocabulary = self._section.variants[name], self.context.config.vocabulary
        labeled = images_of(self.context.config, "labeled")
        facts: Facts = {
            **self.version_facts,
            **variant.facts(f"train.variants.{name}"),
            "train.seed": seed,
            **variant.model.create().vocabulary_facts(vocabulary),
        }
        with_masks = {"labeled": labeled}
        if variant.validate_every is not None:
            with_masks["val"] = images_of(self.context.config, "val")
            facts |= protocol_of(self.context.config).facts("evaluate")
        for role, images in with_masks.items():
            for scheme in sorted(images["label_scheme"].unique().to_pylist(), key=str):
                facts |= vocabulary.scheme_facts(scheme)
            facts[f"inputs.{role} images"] = digest_rows(images.select(["image_id", "mask_id"]))
        for source in variant.label_sources:
            facts |= source.create().inputs(self.context.config)
        for role in variant.roles:
            images = images_of(self.context.config, role)
            facts[f"inputs.{role} images"] = digest_rows(images.select(["image_id"]))
            for labeler in variant.labelers(role):
                labeled_by(self.context.config, role, [labeler])
                used = labels_of(self.context.config, labeler, images)
                digest = digest_rows(used.select(["row", "fingerprint"]))
                facts[f"inputs.{role} labels of {labeler}"] = digest
        best = self.best_weights(name, seed)
        return Unit(
            f"{name} seed {seed}",
            self.part(name, seed),
            facts,
            outputs=(self.weights(name, seed), *([] if best is None else [best])),
            unfinished=(self._files(name, seed).state,),
        )

    def _check_labeler(self, variant: str, labeler: str, role: str) -> None:
        section = self.context.config.sections.get("pseudolabel")
        where = f"{self.context.config.path}: train.variants.{variant}.label_sources"
        known = list(section.labelers) if isinstance(section, PseudolabelConfig) else []
        if labeler not in known:
            fix = f"use one of `pseudolabel.labelers`: {', '.join(known) or 'none'}"
            raise ConfigError(f"no labeler {labeler!r}", where=where, fix=fix)
        if isinstance(section, PseudolabelConfig) and role not in section.roles:
            what = f"{labeler} does not label {role} images"
            raise ConfigError(what, where=where, fix=f"add {role} to `pseudolabel.roles`")

    def _check_processes(self, variant: str, config: VariantConfig) -> None:
        world, crops = torchrun.world(), config.batch_size // config.accumulate
        where = f"{self.context.config.path}: train.variants.{variant}"
        if crops % world:
            what = f"{crops} crops a micro-batch cannot be shared evenly by {world} processes"
            fix = f"set `batch_size` to a multiple of {world * config.accumulate}"
            raise ConfigError(what, where=f"{where}.batch_size", fix=fix)
        first = next(iter(self._section.variants.values()))
        if world > 1 and config.device != first.device:
            fix = "write one for all variants"
            what = "processes that train together have one kind of device"
            raise ConfigError(what, where=f"{where}.device", fix=fix)

    def _train_together(self, names: Sequence[str]) -> None:
        """Does the trainings that the leader names, in all processes of torchrun."""
        from stages.train import distributed

        device = next(iter(self._section.variants.values())).device
        with distributed.joined(device) as own:
            names = distributed.told(names)
            units = {unit.name: unit for unit in self.plan()} if names else {}
            for name in names:
                self._train(units[name], *self._trainings[name], device=own)

    def _train(self, unit: Unit, name: str, seed: int, device: torch.device | None = None) -> None:
        from stages.models.device import pick_device
        from stages.train import distributed
        from stages.train.loop.build import Trainer

        config, variant = self.context.config, self._section.variants[name]
        device = device or pick_device(variant.device)
        files = self._files(name, seed)
        logged = Trainer(self.context, variant, seed, unit, files, device).train()
        if distributed.rank() > 0:
            return
        place = {"run": config.run.run, "variant": name, "seed": seed}
        table = tables.METRICS.rows({**place, **row} for row in logged)
        plain = variant.model_dump(mode="json")
        manifest.write_part(unit.part, table, unit.facts, plain, files=unit.outputs)
