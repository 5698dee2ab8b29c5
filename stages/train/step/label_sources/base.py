"""Base class of all label sources: the labels of crops, and the weight of each pixel."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from pipeline.config.components import Component
from pipeline.config.config_section import Facts, Section
from stages.train.step.schedule import Length, Schedule, StepPosition, weight

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from pipeline.config.config import Config as RunConfig
    from stages.labels.pseudo_labels import PseudoLabels
    from stages.models.segmenters.networks.base import SegmentationNetwork
    from stages.train.data.batch import TrainBatch
    from stages.train.step.weak_predictions import WeakPredictions


Weight = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Threshold = Annotated[float, Field(ge=0, le=1)]
"""Least confidence of a pixel that counts."""


class LabelSourceConfig(Section):
    """Keys that every label source has."""

    on: Literal["unlabeled", "ood"] = "unlabeled"
    """Role of the images it labels."""
    weight: Weight = 1.0
    """Weight of its loss; the supervised loss has 1."""
    schedule: Schedule = "constant"
    """How the weight changes: constant; triangle = up to the middle epoch and down again;
    linear_down = down to 0, with each step."""


class LabelSource(Component, ABC):
    """Provides the labels of one role's images.

    Args:
        config: Its keys, an instance of its `Config`.

    Attributes:
        is_auxiliary: Whether its loss is added to the mean of the other losses instead of being
            part of it.
        needs_validation: Whether it has no labels before the first validation.
    """

    is_auxiliary: ClassVar[bool] = False
    needs_validation: ClassVar[bool] = False

    def __init__(self, config: LabelSourceConfig) -> None:
        self.config = config

    @property
    def name(self) -> str:
        """Name of its loss."""
        return f"{self.file_name()}_{self.config.on}"

    @property
    def labeler(self) -> str | None:
        """The labeler whose stored labels it reads, if any."""
        return None

    @property
    def is_calibrated(self) -> bool:
        """Whether it needs confidences that were calibrated on the labeled images."""
        return False

    def shows(self, run: RunConfig) -> frozenset[int] | None:
        """The classes that it can teach though no label file shows them; None = maybe any.

        Default: none, as predictions of the student show only what it has learned.
        """
        return frozenset()

    def doubts(self, length: Length) -> list[str]:
        """Reasons why it may never teach anything, for warnings; none by default.

        Args:
            length: The length of the training.
        """
        return []

    @property
    def is_ready(self) -> bool:
        """Whether it has labels yet; until then its loss is left out."""
        return True

    def inputs(self, run: RunConfig) -> Facts:
        """Facts of the inputs of its labels, besides the stored labels that it reads.

        Raises:
            MaskmillError: An input is missing.
        """
        return {}

    def load(self, run: RunConfig, device: torch.device) -> None:
        """Loads its inputs; called once, before `label`.

        Raises:
            MaskmillError: An input is missing.
        """

    def validated(self, network: SegmentationNetwork, *, is_best: bool, epoch: int) -> None:
        """Called after each validation, in every process with equal arguments.

        Args:
            network: The validated moving average. It keeps changing: copy what must stay.
            is_best: Whether its mean IoU on val is the best so far.
            epoch: The epoch of the next step, from 0.
        """

    def state(self) -> dict[str, Any]:
        """The state to resume from: tensors and plain values."""
        return {}

    def restore(self, state: Mapping[str, Any], network: SegmentationNetwork) -> None:
        """Restores the state; called after `load`, before `label`.

        Args:
            state: As returned by `state`.
            network: The student, to copy if the state holds weights.
        """

    @abstractmethod
    def label(self, batch: TrainBatch, key: str, weak: WeakPredictions) -> PseudoLabels:
        """Labels the weak view of crops.

        Args:
            batch: The crops of the step.
            key: The crops to label: those of its role, or others that are pasted into these.
            weak: Predictions of the student and its moving average on weak views.

        Returns:
            (B, S, S) labels; `weigh` turns their confidences into weights.
        """

    def weigh(self, labels: PseudoLabels, valid: Tensor) -> Tensor:
        """The weight of each pixel's cross-entropy: (B, S, S) float; by default its confidence.

        Args:
            labels: As from `label`, possibly with others pasted in.
            valid: (B, S, S) bool, False on padding.
        """
        return labels.confidence * valid

    def loss(self, logits: Tensor, labels: PseudoLabels, valid: Tensor) -> Tensor:
        """The loss of logits (B, C, S, S) against labels, as from `label`, of the same crops."""
        from stages.train.step.losses import pseudo_label_loss

        return pseudo_label_loss(logits, labels.mask, self.weigh(labels, valid), valid)

    def weight(self, position: StepPosition) -> float:
        """The weight of its loss at a position of the training."""
        return self.config.weight * weight(self.config.schedule, position)
