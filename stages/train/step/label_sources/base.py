"""What every label source is: it names the pixels of crops and says how much each counts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from pipeline.config.components import Component
from pipeline.config.config_section import Facts, Section
from stages.train.step.schedule import Moment, Schedule, weight

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from pipeline.config.config import Config as RunConfig
    from stages.labels.pseudo_labels import PseudoLabels
    from stages.models.segmenters.networks.base import SegmentationNetwork
    from stages.train.data.batch import TrainBatch
    from stages.train.step.weak_predictions import Sight


Weight = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Threshold = Annotated[float, Field(ge=0, le=1)]
"""A confidence from which on a pixel counts."""


class LabelSourceConfig(Section):
    """Keys that every label source has."""

    on: Literal["unlabeled", "ood"] = "unlabeled"
    """Role of the images it labels."""
    weight: Weight = 1.0
    """Weight of its loss; the supervised loss has 1."""
    schedule: Schedule = "constant"
    """How the weight changes: constant; triangle = up to the middle epoch and down again;
    linear_down = from step to step, to 0."""


class LabelSource(Component, ABC):
    """Provides the labels of one role's images.

    Args:
        config: Its keys, an instance of its `Config`.

    Attributes:
        adds: Whether its loss is added to the mean of the others' instead of being one of them.
        needs_validation: Whether it has no labels before the network was scored on val.
    """

    adds: ClassVar[bool] = False
    needs_validation: ClassVar[bool] = False

    def __init__(self, config: LabelSourceConfig) -> None:
        self.config = config

    @property
    def name(self) -> str:
        """What to call its loss."""
        return f"{self.file_name()}_{self.config.on}"

    @property
    def labeler(self) -> str | None:
        """The labeler whose stored labels it reads, if any."""
        return None

    @property
    def is_ready(self) -> bool:
        """Whether it has labels to give; while it has none its loss is left out."""
        return True

    def inputs(self, run: RunConfig) -> Facts:
        """What of the run its labels depend on, beside the labels that it reads; read at `load`.

        Raises:
            MaskmillError: It is not there.
        """
        return {}

    def load(self, run: RunConfig, device: torch.device) -> None:
        """Reads its inputs; called once, before `label`.

        Raises:
            MaskmillError: They are not there.
        """

    def validated(self, network: SegmentationNetwork, *, is_best: bool, epoch: int) -> None:
        """Hears of a validation during the training.

        Every process of a training calls it, with equal arguments.

        Args:
            network: What was scored, the moving average. It goes on moving: copy what is to stay.
            is_best: Whether its mean IoU on val is the best so far.
            epoch: The epoch of the next step, from 0.
        """

    def state(self) -> dict[str, Any]:
        """What it must remember if the training is interrupted: tensors and plain values."""
        return {}

    def restore(self, state: Mapping[str, Any], network: SegmentationNetwork) -> None:
        """Takes up what `state` gave; called after `load`, before `label`.

        Args:
            state: What `state` gave.
            network: The student; a copy has the shapes that it may need.
        """

    @abstractmethod
    def label(self, batch: TrainBatch, key: str, sight: Sight) -> PseudoLabels:
        """Labels the weak view of crops.

        Args:
            batch: The step's crops.
            key: Which of them: those of its role, or others that are pasted into these.
            sight: What the student and its moving average see.

        Returns:
            (B, S, S) labels; what their confidences mean is known to `weigh`.
        """

    def weigh(self, labels: PseudoLabels, valid: Tensor) -> Tensor:
        """The weight of each pixel's cross-entropy: (B, S, S) float; here its confidence.

        Args:
            labels: As from `label`, maybe with others pasted in.
            valid: (B, S, S) bool, False on padding.
        """
        return labels.confidence * valid

    def loss(self, logits: Tensor, labels: PseudoLabels, valid: Tensor) -> Tensor:
        """What logits (B, C, S, S) cost against labels, as from `label`, of the same crops."""
        from stages.train.step.losses import pseudo_label_loss

        return pseudo_label_loss(logits, labels.mask, self.weigh(labels, valid), valid)

    def weight(self, moment: Moment) -> float:
        """The weight of its loss at a moment of the training."""
        return self.config.weight * weight(self.config.schedule, moment)
