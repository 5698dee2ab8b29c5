"""Builds a training from its config, runs it, and saves the resulting weights. Start here."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import torch

from pipeline.engine.stage import Context, Unit
from pipeline.records.rows import MetricRow
from stages.models.device import peak_memory_bytes
from stages.models.segmenters.description import ModelDescription
from stages.models.segmenters.model_file import save_model_file
from stages.models.segmenters.networks.base import SegmentationNetwork, frozen_copy
from stages.models.segmenters.protocol import Protocol, protocol_of
from stages.train import distributed
from stages.train.config import VariantConfig
from stages.train.data.crops import Crops
from stages.train.inputs import TrainInputs
from stages.train.loop.checkpoint import Checkpoint
from stages.train.loop.loop import TrainingLoop
from stages.train.loop.optimizer import OptimizerStep, build_optimizer
from stages.train.loop.torch_errors import batch_norm_errors, compile_errors
from stages.train.loop.validation import Validation
from stages.train.output import TrainingFiles, TrainingKey
from stages.train.records.example_pictures import ExamplePictures
from stages.train.records.reporter import ShowProgress, TrainingReporter
from stages.train.records.tensorboard import EventFiles
from stages.train.records.training_log import TrainingLog
from stages.train.step.discriminator import Discriminator, FeatureDiscriminator
from stages.train.step.parts import TrainingParts


@dataclass(frozen=True)
class TrainingJob:
    """A training to do; every process of it has one.

    Attributes:
        context: The run.
        variant: The config of the training.
        unit: The training as a unit of the stage.
        files: The files of the training.
        device: The device of this process.
        inputs: The images and labels of the run.
    """

    context: Context
    variant: VariantConfig
    unit: Unit[TrainingKey]
    files: TrainingFiles
    device: torch.device
    inputs: TrainInputs

    @property
    def protocol(self) -> Protocol:
        """How the network predicts images in evaluation."""
        return protocol_of(self.context.config, self.variant.published_protocol)

    @property
    def description(self) -> ModelDescription:
        """The description in the model files of this training."""
        config = self.context.config
        return ModelDescription.of_training(
            self.variant.model, config.vocabulary, self.protocol, self.unit.facts
        )


def train(job: TrainingJob) -> list[MetricRow]:
    """Trains from the last checkpoint on; the leader saves the EMA weights.

    Returns:
        The log as rows of the metrics manifest, without run, kind, variant and seed.

    Raises:
        DivergedError: The loss is not finite or explodes.
        ConfigError: The network cannot be compiled, or cannot train on so few crops.
    """
    name, console, variant = job.unit.name, job.context.console, job.variant
    steps = job.inputs.total_steps(variant)
    crops_a_step = (1 + len(variant.roles)) * variant.batch_size
    where = f"{job.context.config.path}: train"
    with console.steps(f"train {name}", steps, crops_a_step) as progress:

        def show_progress(done: int, values: Mapping[str, float]) -> None:
            if values:
                progress.advance(done, values["loss/total"], peak_memory_bytes(job.device))
                return
            if done > 0:
                console.note(f"train {name}: resumes after step {done}")
            progress.begin(done)

        loop, crops = build_training(job, show_progress), _crops(job)
        compiling = compile_errors(where) if variant.compile else nullcontext()
        with compiling, batch_norm_errors(where):
            loop.run(partial(crops.batches, device=job.device))
    if distributed.rank() == 0:
        for source in (each for each in loop.parts.sources if not each.is_ready):
            console.warn(f"train {name}: the label source {source.name} never had labels")
        save_model_file(job.files.weights, loop.parts.teacher.state_dict(), job.description)
    return _log_rows(loop)


def build_training(job: TrainingJob, show_progress: ShowProgress) -> TrainingLoop:
    """Builds the loop of a training, with everything that it needs but the crops."""
    config, variant = job.context.config, job.variant
    torch.manual_seed(job.unit.key.seed)
    sources = [choice.create() for choice in variant.label_sources]
    for source in sources:
        source.load(config, job.device)
    student = _student(job)
    parts = TrainingParts(
        student=student,
        teacher=frozen_copy(student),
        perturbation=variant.perturbation.create(config.vocabulary),
        sources=sources,
        supervised_loss=variant.supervised_loss.create(),
        discriminator=_discriminator(job, student),
    )
    log = TrainingLog(job.files.log, writes=distributed.rank() == 0)
    return TrainingLoop(
        parts=parts,
        config=variant,
        seed=job.unit.key.seed,
        steps=job.inputs.total_steps(variant),
        steps_an_epoch=job.inputs.steps_an_epoch(variant),
        optimizer=OptimizerStep(build_optimizer(student, variant), variant, job.device),
        checkpoint=Checkpoint(job.files.state, job.unit.facts),
        log=log,
        open_reporter=_reporter(job, log, show_progress),
        device=job.device,
        validation=_validation(job),
    )


def _student(job: TrainingJob) -> SegmentationNetwork:
    network = job.variant.model.create().build(job.context.config.vocabulary)
    if job.variant.freeze_encoder:
        network.freeze_encoder()
    # Convolutions are fastest in this layout, on CPUs and GPUs alike.
    network = network.to(job.device).to(memory_format=torch.channels_last)
    network = distributed.sync_batchnorm(network)
    if job.variant.compile:
        network.compile()
    return network


def _discriminator(job: TrainingJob, student: SegmentationNetwork) -> Discriminator | None:
    keys, size = job.variant.feature_discriminator, job.variant.crop_px
    if keys is None:
        return None
    with torch.no_grad():
        blank = torch.zeros(1, 3, size, size, device=job.device)
        channels = student.eval().fuse(student.encode(blank)).shape[1]
    network = FeatureDiscriminator(channels).to(job.device)
    return Discriminator(network, keys.weight, keys.learning_rate)


def _crops(job: TrainingJob) -> Crops:
    """The crops of this process."""
    variant, inputs = job.variant, job.inputs
    count, rank, world = variant.micro_batch_size, distributed.rank(), distributed.world()
    return Crops(
        labeled=inputs.train_images("labeled", []),
        others={role: inputs.train_images(role, variant.labelers(role)) for role in variant.roles},
        config=variant,
        vocabulary=job.context.config.vocabulary,
        seed=job.unit.key.seed,
        rows=distributed.local_rows(count, rank, world),
    )


def _reporter(
    job: TrainingJob, log: TrainingLog, show_progress: ShowProgress
) -> Callable[[int], TrainingReporter]:
    """Opens a reporter after a number of steps; only the leader's shows pictures."""
    variant, is_leader = job.variant, distributed.rank() == 0
    roles = {
        source.name: source.config.on
        for source in (choice.create() for choice in variant.label_sources)
    }

    def open_reporter(start: int) -> TrainingReporter:
        pictures = None
        if is_leader:
            events = EventFiles(job.files.events, start, job.context.console.warn)
            palette = job.context.config.vocabulary.palette
            pictures = ExamplePictures(events, roles, palette, variant.pictures_every)
        steps = job.inputs.total_steps(variant)
        return TrainingReporter(log, show_progress, variant.log_every, steps, pictures)

    return open_reporter


def _validation(job: TrainingJob) -> Validation | None:
    config, every = job.context.config, job.variant.validate_every
    if every is None:
        return None
    return Validation(
        images=job.inputs.images("val").to_pylist(),
        vocabulary=config.vocabulary,
        every=job.inputs.steps_an_epoch(job.variant) if every == "epoch" else every,
        path=job.files.best,
        description=job.description,
        device=job.device,
        protocol=job.protocol,
    )


def _log_rows(loop: TrainingLoop) -> list[MetricRow]:
    rows: list[MetricRow] = []
    for line in loop.log.lines:
        values = json.loads(line)
        step, split = values.pop("step"), values.pop("split", "train")
        place: MetricRow = {"step": step, "epoch": step / loop.steps_an_epoch, "split": split}
        rows += [{**place, "name": name, "value": value} for name, value in values.items()]
    return rows
