"""Base class of all perturbations: the strong views of a step and their weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pipeline.config.components import Component
from pipeline.config.config_section import Section

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.config.vocabulary import Vocabulary
    from stages.labels.pseudo_labels import PseudoLabels
    from stages.models.segmenters.networks.base import SegmentationNetwork
    from stages.train.data.batch import TrainBatch
    from stages.train.step.strong_views import View

Labels = Mapping[str, "PseudoLabels"]
"""Labels (B, S, S) by the name of their source."""


class PerturbationConfig(Section):
    """Keys that every perturbation has."""

    separate_domains: bool = False
    """Whether BatchNorm treats domains separately: OOD images pass on their own, and running
    statistics come from clean views of the target domain only. False is the published code."""


class Perturbation(Component, ABC):
    """Makes the strong views that `training_step` compares with the labels of every source.

    Args:
        config: Its keys, an instance of its `Config`.
        vocabulary: The classes.

    Attributes:
        strong_weights: Weight of each strong view's loss.
        perturbed_weight: Weight of the loss of perturbed features; 0 = none are made.
        draws_twice: Whether it pastes from a second draw of the first role's images.
        sees_weak_views: Whether weak views pass together with labeled crops, in train mode.
        least_crops: Least number of crops of a role in a micro-batch.
        averages: Whether the total is the weighted mean of the supervised loss and the sources'
            losses instead of their weighted sum.
    """

    strong_weights: ClassVar[tuple[float, ...]] = (1.0,)
    perturbed_weight: ClassVar[float] = 0.0
    draws_twice: ClassVar[bool] = False
    sees_weak_views: ClassVar[bool] = False
    least_crops: ClassVar[int] = 1
    averages: ClassVar[bool] = True

    def __init__(self, config: PerturbationConfig, vocabulary: Vocabulary) -> None:
        self.config = config
        self.vocabulary = vocabulary

    @abstractmethod
    def views(self, batch: TrainBatch, role: str, labels: Labels, pasted: Labels) -> list[View]:
        """Makes the strong views of a role's crops, one for each of `strong_weights`.

        Args:
            batch: The crops of the step.
            role: The role.
            labels: Labels of its weak views, by each of its sources.
            pasted: Labels of the crops of `TrainBatch.paste_source`; empty unless `draws_twice`.
        """

    def strong_logits(
        self, student: SegmentationNetwork, images: Tensor, batch: TrainBatch
    ) -> Tensor:
        """Logits (N, C, S, S) of all strong views (N, 3, S, S) of a role, view after view."""
        logits: Tensor = student(images)
        return logits
