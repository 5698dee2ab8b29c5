"""Puts a training together from its config, and leaves its weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from pipeline.engine.stage import Context, Unit
from pipeline.errors import ConfigError
from stages.models.device import peak_memory_bytes
from stages.models.segmenters.description import ModelDescription
from stages.models.segmenters.model_file import save_model_file
from stages.models.segmenters.networks.base import SegmentationNetwork
from stages.models.segmenters.protocol import protocol_of
from stages.train import distributed
from stages.train.config import VariantConfig
from stages.train.data.crops import Crops
from stages.train.inputs import TrainInputs
from stages.train.loop.checkpoint import Checkpoint
from stages.train.loop.loop import Optimization, Training
from stages.train.loop.validation import Validation
from stages.train.output import TrainingFiles, TrainingKey
from stages.train.records.example_pictures import Watching
from stages.train.records.tensorboard import EventLog
from stages.train.records.training_log import TrainingLog
from stages.train.step.discriminator import Discriminator, FeatureDiscriminator


@dataclass(frozen=True)
class Trainer:
    """One variant with one seed; every process of the training has one.

    Attributes:
        context: The run.
        variant: What to train.
        seed: Of everything random.
        unit: The training as a unit of the stage.
        files: Where its files go.
        device: Where this process computes.
    """

    context: Context
    variant: VariantConfig
    seed: int
    unit: Unit[TrainingKey]
    files: TrainingFiles
    device: torch.device

    def train(self) -> list[dict[str, Any]]:
        """Trains from the last checkpoint on; the first process leaves the weights.

        Returns:
            What was logged, as rows of the metrics manifest without run, variant and seed.
        """
        training, crops = self._training(), self._crops()
        name, console = self.unit.name, self.context.console
        roles = 1 + len(self.variant.roles)
        with console.steps(
            f"train {name}", training.optimization.steps, roles * self.variant.batch_size
        ) as line:

            def tell(step: int, values: dict[str, float]) -> None:
                if values:
                    line.advance(step, values["loss/total"], peak_memory_bytes(self.device))
                    return
                if step > 0:
                    console.note(f"train {name}: resumes after step {step}")
                line.begin(step)

            with self._compilable(), self._enough_crops():
                trained = training.run(
                    lambda micro: crops.batches(micro, self.device, self.variant.workers),
                    self.device,
                    tell,
                )
        if distributed.rank() == 0:
            for source in (each for each in training.sources if not each.is_ready):
                console.warn(f"train {name}: {source.name} never had a label to learn from")
            save_model_file(self.files.weights, trained.state_dict(), self._description)
        return _rows(training)

    def _crops(self) -> Crops:
        """The micro-batches, this process's share of them."""
        variant, config = self.variant, self.context.config
        count = variant.batch_size // variant.accumulate
        return Crops(
            labeled=self._inputs.train_images("labeled", []),
            others={
                role: self._inputs.train_images(role, variant.labelers(role))
                for role in variant.roles
            },
            draws_twice=variant.perturbation.component.draws_twice,
            vocabulary=config.vocabulary,
            seed=self.seed,
            batch_size=count,
            crop_px=variant.crop_px,
            scale=variant.scale,
            rows=distributed.own_rows(count, distributed.rank(), distributed.world()),
        )

    def _training(self) -> Training:
        variant, config = self.variant, self.context.config
        torch.manual_seed(self.seed)
        sources = [choice.create() for choice in variant.label_sources]
        for source in sources:
            source.load(config, self.device)
        network = variant.model.create().build(config.vocabulary)
        if variant.freeze_encoder:
            network.freeze_encoder()
        # The layout that convolutions are quickest in, on CPUs and GPUs alike.
        network = network.to(self.device).to(memory_format=torch.channels_last)
        network = distributed.synchronized(network)
        if variant.compile:
            network.compile()
        return Training(
            network=network,
            perturbation=variant.perturbation.create(config.vocabulary),
            sources=sources,
            supervised_loss=variant.supervised_loss.create(),
            discriminator=self._discriminator(network),
            optimization=Optimization(
                optimizer=variant.optimizer,
                learning_rate=variant.learning_rate,
                decoder_multiplier=variant.decoder_multiplier,
                weight_decay=variant.weight_decay,
                ema_decay=variant.ema_decay,
                steps=self._inputs.total_steps(variant),
                seed=self.seed,
                precision=variant.precision,
                accumulate=variant.accumulate,
                clip_norm=variant.clip_norm,
                encoder_multiplier=variant.encoder_multiplier,
                layer_decay=variant.layer_decay,
                decay_encoder_norms=variant.decay_encoder_norms,
            ),
            checkpoint=Checkpoint(self.files.state, self.unit.facts),
            log=TrainingLog(self.files.log, writes=distributed.rank() == 0),
            checkpoint_every=variant.checkpoint_every,
            log_every=variant.log_every,
            steps_an_epoch=self._inputs.steps_an_epoch(variant),
            validation=self._validation(),
            watch=self._watching if distributed.rank() == 0 else None,
        )

    def _discriminator(self, network: SegmentationNetwork) -> Discriminator | None:
        keys, size = self.variant.feature_discriminator, self.variant.crop_px
        if keys is None:
            return None
        with torch.no_grad():
            blank = torch.zeros(1, 3, size, size, device=self.device)
            channels = network.eval().fuse(network.encode(blank)).shape[1]
        judge = FeatureDiscriminator(channels).to(self.device)
        return Discriminator(judge, keys.weight, keys.learning_rate)

    def _watching(self, start: int) -> Watching:
        sources = [choice.create() for choice in self.variant.label_sources]
        roles = {source.name: source.config.on for source in sources}
        palette = self.context.config.vocabulary.palette
        events = EventLog(self.files.events, start, self.context.console.warn)
        return Watching(events, roles, palette, self.variant.pictures_every)

    def _validation(self) -> Validation | None:
        config, every = self.context.config, self.variant.validate_every
        if every is None:
            return None
        return Validation(
            images=self._inputs.images("val").to_pylist(),
            vocabulary=config.vocabulary,
            every=self._inputs.steps_an_epoch(self.variant) if every == "epoch" else every,
            path=self.files.best,
            description=self._description,
            device=self.device,
            protocol=protocol_of(config),
        )

    @contextmanager
    def _compilable(self) -> Iterator[None]:
        """Tells in a line what torch cannot compile; it tries in the first step."""
        if not self.variant.compile:
            yield
            return
        from torch._dynamo.exc import TorchDynamoException  # seconds to import
        from torch._inductor.runtime import runtime_utils

        try:
            yield
        except TorchDynamoException as error:
            what = f"torch cannot compile the network: {' '.join(str(error).split())[:200]}"
            where = f"{self.context.config.path}: train"
            fix = "set `compile: false`"
            cause = getattr(error, "inner_exception", None)
            cache = runtime_utils.cache_dir()  # type: ignore[attr-defined] # as torch 2.4 has it
            if isinstance(cause, ImportError) and cache in str(cause):
                fix = f"delete {cache}, where a kill may have left half a file, or {fix}"
            raise ConfigError(what, where=where, fix=fix) from error

    @contextmanager
    def _enough_crops(self) -> Iterator[None]:
        """Tells in a line that a network normalizes over the crops, of which there is one."""
        try:
            yield
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            what = "the network has BatchNorm of single values, and needs several crops for it"
            where = f"{self.context.config.path}: train"
            fix = "set `batch_size` to at least 2 crops for each micro-batch and process"
            raise ConfigError(what, where=where, fix=fix) from error

    @cached_property
    def _inputs(self) -> TrainInputs:
        return TrainInputs(self.context.config)

    @cached_property
    def _description(self) -> ModelDescription:
        """The description in the model files of this training."""
        config = self.context.config
        return ModelDescription.of_training(
            self.variant.model, config.vocabulary, protocol_of(config), self.unit.facts
        )


def _rows(training: Training) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for line in training.log.lines:
        values = json.loads(line)
        step, split = values.pop("step"), values.pop("split", "train")
        place = {"step": step, "epoch": step / training.steps_an_epoch, "split": split}
        rows += [{**place, "name": key, "value": value} for key, value in values.items()]
    return rows
