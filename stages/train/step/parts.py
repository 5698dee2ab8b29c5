"""Who learns in a step, and what from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stages.models.segmenters.networks.base import SegmentationNetwork
    from stages.train.step.discriminator import Discriminator
    from stages.train.step.label_sources.base import LabelSource
    from stages.train.step.supervised_losses.base import SupervisedLoss


@dataclass(frozen=True)
class Learner:
    """The networks of a training, and where its labels and losses come from.

    Attributes:
        student: The network in training.
        teacher: Its moving average, in eval mode.
        sources: The label sources; none means supervised training.
        supervised_loss: Of labeled crops.
        discriminator: Tells labeled features from others, if there is one.
    """

    student: SegmentationNetwork
    teacher: SegmentationNetwork
    sources: Sequence[LabelSource]
    supervised_loss: SupervisedLoss
    discriminator: Discriminator | None = None
