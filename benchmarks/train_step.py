"""A training step compared with its passes through the network."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from benchmarks.cost import Cost, now
from pipeline.config.vocabulary import Vocabulary
from stages.models.segmenters.networks.base import SegmentationNetwork, frozen_copy
from stages.train.config import VariantConfig
from stages.train.data.batch import SECOND_DRAW, TrainBatch
from stages.train.loop import teacher
from stages.train.loop.loop import DTYPES
from stages.train.loop.optimizer import OptimizerStep, build_optimizer
from stages.train.step.label_sources.previous import PreviousSource
from stages.train.step.parts import TrainingParts
from stages.train.step.schedule import StepPosition, learning_rate
from stages.train.step.step import training_step
from stages.train.step.weak_predictions import predict

_STEPS = 100
"""Length of the training; the measured steps are in its middle, where all losses count."""
WARM = 2
"""Steps for libraries to warm up."""


def measured(
    variant: VariantConfig,
    vocabulary: Vocabulary,
    batches: Sequence[TrainBatch],
    device: torch.device,
) -> dict[str, Cost]:
    """The mean cost of a step on each of these batches, and of its passes, one after the other.

    The passes are those of SemiOVS with PrevMatch (arXiv 2507.03302, section 3.3; 2405.20610), on
    the step's own tensors, with a loss that costs nothing. A step has in addition colours, boxes,
    labels, losses, the optimizer and the averaged weights.

    Args:
        variant: The preset semiovs-prevmatch, maybe with another network.
        vocabulary: The classes.
        batches: The first of them warm up.
        device: Where they are.
    """
    torch.manual_seed(0)
    network = variant.model.create().build(vocabulary, architecture={})
    network = network.to(device).to(memory_format=torch.channels_last)
    sources = [choice.create() for choice in variant.label_sources]
    (previous,) = (each for each in sources if isinstance(each, PreviousSource))
    for epoch in range(previous.config.keep):
        previous.validated(network, is_best=True, epoch=previous.config.first_epoch + epoch)
    ema = frozen_copy(network)
    parts = TrainingParts(
        student=network,
        teacher=ema,
        perturbation=variant.perturbation.create(vocabulary),
        sources=sources,
        supervised_loss=variant.supervised_loss.create(),
    )
    optimizer = OptimizerStep(build_optimizer(network, variant), variant, device)
    position = StepPosition(_STEPS // 2, _STEPS, 1)
    dtype = DTYPES[variant.precision]

    def precision() -> torch.autocast:
        return torch.autocast(device.type, dtype, enabled=dtype is not None)

    def step(batch: TrainBatch) -> None:
        optimizer.begin(learning_rate(variant.learning_rate, position.step, _STEPS))
        with precision():
            losses = training_step(parts, batch, position)
        optimizer.backward(losses.total)
        optimizer.step()
        teacher.update(ema, network, teacher.decay(position.step, variant.ema_decay))

    def asked(batch: TrainBatch) -> None:
        """Passes without gradient: second draw by the student, both draws by earlier networks."""
        members, _ = previous._draw(batch.random.of_step(f"members of {previous.name}"))
        with precision():
            predict(network, batch.crops[SECOND_DRAW].weak)
            for member in members.tolist():
                for key in (SECOND_DRAW, batch.roles[0]):
                    predict(previous._networks[member], batch.crops[key].weak)

    def trained(batch: TrainBatch) -> None:
        """Passes with gradient: clean views with perturbed features, then strong views by role."""
        network.train()
        clean = [batch.labeled.images, *(batch.crops[role].weak for role in batch.roles)]
        strong = [[batch.strong(role, number) for number in (0, 1)] for role in batch.roles]
        with precision():
            outputs = [_decoded_twice(network, torch.cat(clean))]
            outputs += [network(torch.cat(views)) for views in strong]
        torch.autograd.backward(outputs, [torch.full_like(each, 1e-6) for each in outputs])

    def cost(work: Callable[[TrainBatch], None], batch: TrainBatch) -> Cost:
        optimizer.optimizer.zero_grad(set_to_none=True)
        start = now(device)
        work(batch)
        return now(device) - start

    works = {"step": step, "asked": asked, "trained": trained}  # a step makes the strong views
    sums = dict.fromkeys(works, Cost())
    for number, batch in enumerate(batches):
        for name, work in works.items():
            found = cost(work, batch)
            if number >= WARM:
                sums[name] += found * (1 / (len(batches) - WARM))
    return sums


def _decoded_twice(network: SegmentationNetwork, images: Tensor) -> Tensor:
    features = network.encode(images)
    size = (images.shape[-2], images.shape[-1])
    return network.decode([torch.cat([level, level]) for level in features], size)
