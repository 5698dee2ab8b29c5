"""Train: a segmenter a variant and seed, from labeled images and whatever its sources label."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pipeline import manifest, tables
from pipeline.errors import ConfigError, DataError
from pipeline.section import Facts, Section
from pipeline.sharded import digest_rows
from pipeline.stage import Context, Stage, Unit
from stages.ingest.output import read_images
from stages.pseudolabel.output import of_rows, read_labels
from stages.pseudolabel.stage import PseudolabelConfig
from stages.train.config import TrainConfig, VariantConfig

if TYPE_CHECKING:
    from stages.train.crops import TrainImage

Rows = list[dict[str, Any]]


class TrainStage(Stage):
    """Fills artifacts/<run>/checkpoints and the training rows of the metrics manifest."""

    name = "train"
    version = 2
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

    def plan(self) -> list[Unit]:
        """A unit a variant and seed."""
        return [self._unit(name, seed) for name, seed in self._trainings.values()]

    def run(self, units: Sequence[Unit]) -> None:
        """Does the trainings that are not fresh, each from its last checkpoint."""
        for unit in units:
            self._train(unit, *self._trainings[unit.name])

    def garbage(self) -> list[Path]:
        """Parts and checkpoints of trainings that the config has not; states of finished ones."""
        plan = self.plan()
        parts = {unit.part for unit in plan}
        folders = {self._folder(*key) for key in self._trainings.values()}
        metrics = self.context.config.manifests / tables.METRICS.name
        found = [p for p in metrics.glob("part-train-*.parquet") if p not in parts]
        checkpoints = self.context.config.artifacts / "checkpoints"
        found += [p for p in checkpoints.glob("*/seed-*") if p not in folders]
        done = (unit for unit in plan if manifest.read_facts(unit.part) == unit.facts)
        return found + [path for unit in done for path in unit.unfinished if path.exists()]

    def weights(self, variant: str, seed: int) -> Path:
        """The file that the training of a variant ends with."""
        return self._folder(variant, seed) / "model.safetensors"

    def part(self, variant: str, seed: int) -> Path:
        """The part of the metrics manifest that the training of a variant commits."""
        folder = self.context.config.manifests / tables.METRICS.name
        return folder / f"part-train-{variant}-seed-{seed}.parquet"

    @property
    def _trainings(self) -> dict[str, tuple[str, int]]:
        """Variant and seed of each unit, by its name."""
        variants = self._section.variants.items()
        return {f"{name} seed {n}": (name, n) for name, variant in variants for n in variant.seeds}

    def _folder(self, variant: str, seed: int) -> Path:
        return self.context.config.artifacts / "checkpoints" / variant / f"seed-{seed}"

    def _state(self, variant: str, seed: int) -> Path:
        """What a training goes on from."""
        return self._folder(variant, seed) / "last.pt"

    def _of_role(self, role: str) -> pa.Table:
        config = self.context.config
        found = read_images(config.manifests, [role])
        if found.num_rows:
            return found
        what = f"no {role} image"
        fix = f"add a source with `role: {role}` whose images are readable"
        raise DataError(what, where=f"{config.path}: ingest.sources", fix=fix)

    def _labels(self, labeler: str) -> pa.Table:
        return read_labels(self.context.config.manifests, labeler)

    def _labelers(self, variant: VariantConfig, role: str) -> list[str]:
        sources = [choice.create() for choice in variant.label_sources]
        return [
            source.labeler
            for source in sources
            if source.labeler is not None and source.config.on == role
        ]

    def _unit(self, name: str, seed: int) -> Unit:
        variant, vocabulary = self._section.variants[name], self.context.config.vocabulary
        labeled = self._of_role("labeled")
        facts: Facts = {
            **self.version_facts,
            **variant.facts(f"train.variants.{name}"),
            "train.seed": seed,
            **variant.model.create().vocabulary_facts(vocabulary),
        }
        for scheme in sorted(labeled["label_scheme"].unique().to_pylist(), key=str):
            facts |= vocabulary.scheme_facts(scheme)
        facts["inputs.labeled images"] = digest_rows(labeled.select(["image_id", "mask_id"]))
        for source in variant.label_sources:
            facts |= source.create().inputs(self.context.config)
        for role in variant.roles:
            images = self._of_role(role)
            facts[f"inputs.{role} images"] = digest_rows(images.select(["image_id"]))
            for labeler in self._labelers(variant, role):
                used = of_rows(self._labels(labeler), images)
                if not used.num_rows:
                    raise self._unlabeled(role, [labeler])
                digest = digest_rows(used.select(["row", "fingerprint"]))
                facts[f"inputs.{role} labels of {labeler}"] = digest
        return Unit(
            f"{name} seed {seed}",
            self.part(name, seed),
            facts,
            outputs=(self.weights(name, seed),),
            unfinished=(self._state(name, seed),),
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

    def _train(self, unit: Unit, name: str, seed: int) -> None:
        import torch

        from stages.device import pick_device
        from stages.segmenters.weights import save_weights
        from stages.train.checkpoint import Checkpoint
        from stages.train.crops import Crops
        from stages.train.loop import Optimization, Training

        config, variant = self.context.config, self._section.variants[name]
        device = pick_device(variant.device)
        torch.manual_seed(seed)
        crops = Crops(
            labeled=self._train_images(self._of_role("labeled"), []),
            others={
                role: self._train_images(self._of_role(role), self._labelers(variant, role))
                for role in variant.roles
            },
            vocabulary=config.vocabulary,
            seed=seed,
            batch_size=variant.batch_size,
            crop_px=variant.crop_px,
            scale=variant.scale,
        )
        sources = [choice.create() for choice in variant.label_sources]
        for source in sources:
            source.load(config)
        network = variant.model.create().build(config.vocabulary)
        if variant.freeze_encoder:
            network.freeze_encoder()
        folder = self._folder(name, seed)
        training = Training(
            # The layout that convolutions are quickest in, on CPUs and GPUs alike.
            network=network.to(device).to(memory_format=torch.channels_last),
            perturbation=variant.perturbation.create(),
            sources=sources,
            optimization=Optimization(
                optimizer=variant.optimizer,
                learning_rate=variant.learning_rate,
                encoder_multiplier=variant.encoder_multiplier,
                decoder_multiplier=variant.decoder_multiplier,
                layer_decay=variant.layer_decay,
                weight_decay=variant.weight_decay,
                decay_encoder_norms=variant.decay_encoder_norms,
                ema_decay=variant.ema_decay,
                steps=variant.steps,
                seed=seed,
                precision=variant.precision,
            ),
            checkpoint=Checkpoint(self._state(name, seed), unit.facts),
            log=folder / "log.jsonl",
            checkpoint_every=variant.checkpoint_every,
            log_every=variant.log_every,
        )
        with self.context.console.progress(f"train {unit.name}", variant.steps, "steps") as line:
            done = 0

            def tell(step: int, values: dict[str, float]) -> None:
                nonlocal done
                if done == 0 and step > 0 and not values:
                    self.context.console.note(f"train {unit.name}: resumes after step {step}")
                loss = f"loss {values['loss/total']:.3f}" if values else ""
                line.advance(step - done, loss)
                done = step

            trained = training.run(
                lambda steps: crops.batches(steps, device, variant.workers), device, tell
            )
        # The old part must not speak for new weights, should this run die before the new one.
        unit.part.unlink(missing_ok=True)
        about: Facts = {
            "fingerprint": manifest.digest(unit.facts),
            "classes": [*config.vocabulary.class_names],
        }
        save_weights(self.weights(name, seed), trained, about)
        rows = self._metric_rows(name, seed, training.log)
        plain = variant.model_dump(mode="json")
        table = tables.METRICS.rows(rows)
        manifest.write_part(unit.part, table, unit.facts, plain, files=unit.outputs)

    def _train_images(self, table: pa.Table, labelers: Sequence[str]) -> list[TrainImage]:
        """The images with their labels; where a labeler is asked for, only those it labeled."""
        from stages.train.crops import StoredLabel, TrainImage

        rows: Rows = table.to_pylist()
        labels = {
            labeler: {row["row"]: row for row in of_rows(self._labels(labeler), table).to_pylist()}
            for labeler in labelers
        }
        workspace = self.context.config.run.workspace
        images = [
            TrainImage(
                uri=row["uri"],
                mask_uri=row["mask_uri"] if row["role"] == "labeled" else None,
                label_scheme=row["label_scheme"],
                image_id=row["image_id"],
                mask_id=row["mask_id"],
                stored={
                    labeler: StoredLabel(
                        workspace / own[row["row"]]["store"],
                        row["row"],
                        (own[row["row"]]["height"], own[row["row"]]["width"]),
                    )
                    for labeler, own in labels.items()
                },
            )
            for row in rows
            if all(row["row"] in own for own in labels.values())
        ]
        if not images:
            raise self._unlabeled(rows[0]["role"], labelers)
        return images

    def _unlabeled(self, role: str, labelers: Sequence[str]) -> DataError:
        what = f"no {role} image has labels of {', '.join(labelers)}"
        where = str(self.context.config.manifests / tables.PSEUDO_LABELS.name)
        fix = "run `maskmill run pseudolabel`, or see its column error_message"
        return DataError(what, where=where, fix=fix)

    def _metric_rows(self, name: str, seed: int, log: Path) -> Rows:
        variant, run = self._section.variants[name], self.context.config.run.run
        role = variant.roles[0] if variant.roles else "labeled"
        steps_an_epoch = self._of_role(role).num_rows / variant.batch_size
        rows: Rows = []
        for line in log.read_text(encoding="utf-8").splitlines():
            values = json.loads(line)
            step = values.pop("step")
            place = {"run": run, "variant": name, "seed": seed, "split": "train"}
            place |= {"step": step, "epoch": step / steps_an_epoch}
            rows += [{**place, "name": key, "value": value} for key, value in values.items()]
        return rows
