"""The networks of a training, its perturbation, and its sources of labels and losses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stages.models.segmenters.networks.base import SegmentationNetwork
    from stages.train.step.discriminator import Discriminator
    from stages.train.step.label_sources.base import LabelSource
    from stages.train.step.perturbations.base import Perturbation
    from stages.train.step.supervised_losses.base import SupervisedLoss


@dataclass(frozen=True)
class TrainingParts:
    """Everything that a training step works with besides its batch.

    Attributes:
        student: The network in training.
        teacher: Its moving average, in eval mode.
        perturbation: Makes the strong views.
        sources: The label sources; none means supervised training.
        supervised_loss: Loss of labeled crops.
        discriminator: Feature discriminator, if there is one.
    """

    student: SegmentationNetwork
    teacher: SegmentationNetwork
    perturbation: Perturbation
    sources: Sequence[LabelSource]
    supervised_loss: SupervisedLoss
    discriminator: Discriminator | None = None
