"""A training step against the passes through the network that it is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.cost import Cost, now
from pipeline.config.vocabulary import Vocabulary
from stages.models.segmenters.networks.base import SegmentationNetwork
from stages.train.config import VariantConfig
from stages.train.data.batch import MIX, TrainBatch
from stages.train.loop import teacher
from stages.train.loop.checkpoint import Checkpoint
from stages.train.loop.loop import Optimization
from stages.train.loop.stepper import DTYPES, Stepper
from stages.train.step.label_sources.previous import PreviousSource
from stages.train.step.parts import Learner
from stages.train.step.schedule import Moment
from stages.train.step.weak_predictions import predict

_STEPS = 100
"""Of the training whose middle the measured steps are: all losses count there."""
WARM = 2
"""Steps that libraries set themselves up in."""


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
    ema = teacher.frozen_copy(network)
    stepper = Stepper(
        learner=Learner(network, ema, sources, variant.supervised_loss.create()),
        perturbation=variant.perturbation.create(vocabulary),
        optimizer=Optimization(
            optimizer=variant.optimizer,
            learning_rate=variant.learning_rate,
            decoder_multiplier=variant.decoder_multiplier,
            weight_decay=variant.weight_decay,
            ema_decay=variant.ema_decay,
            steps=_STEPS,
            seed=0,
            precision=variant.precision,
        ).build(network),
        seed=0,
        precision=variant.precision,
        accumulate=1,
        clip_norm=variant.clip_norm,
        checkpoint=Checkpoint(Path("no checkpoint"), {}),
        device=device,
    )
    moment = Moment(_STEPS // 2, _STEPS, 1)
    dtype = DTYPES[variant.precision]

    def precision() -> torch.autocast:
        return torch.autocast(device.type, dtype, enabled=dtype is not None)

    def step(batch: TrainBatch) -> None:
        stepper.step(moment, iter([batch]))
        teacher.update(ema, network, teacher.decay(moment.step, variant.ema_decay))

    def asked(batch: TrainBatch) -> None:
        """Those without gradient: the second draw by the student, both by earlier selves."""
        members, _ = previous._draw(batch.draws.of_step(f"members of {previous.name}"))
        with precision():
            predict(network, batch.crops[MIX].weak)
            for member in members.tolist():
                for key in (MIX, batch.roles[0]):
                    predict(previous._selves[member], batch.crops[key].weak)

    def trained(batch: TrainBatch) -> None:
        """Those with one: clean views with perturbed features, then the strong views by role."""
        network.train()
        clean = [batch.labeled.images, *(batch.crops[role].weak for role in batch.roles)]
        strong = [[batch.strong(role, number) for number in (0, 1)] for role in batch.roles]
        with precision():
            outputs = [_decoded_twice(network, torch.cat(clean))]
            outputs += [network(torch.cat(views)) for views in strong]
        torch.autograd.backward(outputs, [torch.full_like(each, 1e-6) for each in outputs])

    def cost(work: Callable[[TrainBatch], None], batch: TrainBatch) -> Cost:
        stepper.optimizer.zero_grad(set_to_none=True)
        start = now(device)
        work(batch)
        return now(device) - start

    parts = {"step": step, "asked": asked, "trained": trained}  # a step makes the strong views
    sums = dict.fromkeys(parts, Cost())
    for number, batch in enumerate(batches):
        for name, work in parts.items():
            found = cost(work, batch)
            if number >= WARM:
                sums[name] += found * (1 / (len(batches) - WARM))
    return sums


def _decoded_twice(network: SegmentationNetwork, images: Tensor) -> Tensor:
    features = network.encode(images)
    size = (images.shape[-2], images.shape[-1])
    return network.decode([torch.cat([level, level]) for level in features], size)
