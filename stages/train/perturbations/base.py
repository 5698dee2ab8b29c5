"""What every perturbation is: the losses of one training step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.components import Component
from pipeline.section import Section

if TYPE_CHECKING:
    from torch import Tensor

    from stages.segmenters.networks.base import SegmentationNetwork
    from stages.train.batch import TrainBatch
    from stages.train.label_sources.base import LabelSource


@dataclass(frozen=True)
class StepLosses:
    """The losses of one step, scalars.

    Attributes:
        total: What the step minimizes.
        terms: By name, before weights: `supervised`, and `<source>_<role>` for each label source.
    """

    total: Tensor
    terms: Mapping[str, Tensor]


class Perturbation(Component, ABC):
    """Perturbs a batch and asks for consistency with the labels of every source.

    Args:
        config: Its keys, an instance of its `Config`.
    """

    def __init__(self, config: Section) -> None:
        self.config = config

    @abstractmethod
    def step(
        self,
        network: SegmentationNetwork,
        teacher: SegmentationNetwork,
        batch: TrainBatch,
        sources: Sequence[LabelSource],
    ) -> StepLosses:
        """The losses of one step, with the gradient's graph behind them.

        Args:
            network: The student; is in train mode afterwards.
            teacher: Its moving average, in eval mode; stays as it is.
            batch: With crops of every role that a source labels.
            sources: The label sources; none means supervised training.
        """


def weighted_total(
    supervised: Tensor, terms: Sequence[Tensor], sources: Sequence[LabelSource]
) -> Tensor:
    """``(L_x + sum_k w_k L_k) / (1 + sum_k w_k)``.

    With one source of weight 1 this is UniMatch's total, with PrevMatch's or SemiOVS's second
    source theirs (arXiv 2208.09910, 2405.20610, 2507.03302).
    """
    weights = [source.config.weight for source in sources]
    weighted = sum(weight * term for weight, term in zip(weights, terms, strict=True))
    return (supervised + weighted) / (1 + sum(weights))
