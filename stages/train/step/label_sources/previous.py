"""A random ensemble of the student's earlier selves labels (PrevMatch, arXiv 2405.20610)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from stages.train.step.label_sources._online import OnlineConfig, OnlineSource
from stages.train.step.label_sources.base import Threshold
from stages.train.step.schedule import Schedule

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from stages.labels.pseudo_labels import PseudoLabels
    from stages.models.segmenters.networks.base import SegmentationNetwork
    from stages.train.data.batch import TrainBatch
    from stages.train.step.weak_predictions import Sight


class PreviousConfig(OnlineConfig):
    """Keys of the source `previous`."""

    threshold: Threshold = 0.9
    """Confidence that a pixel needs to count."""
    schedule: Schedule = "triangle"
    """See `LabelSourceConfig`."""
    keep: Annotated[int, Field(ge=1)] = 8
    """Earlier selves that are remembered; a new one drives out the oldest."""
    members: Annotated[int, Field(ge=1)] = 3
    """Largest number of them that a step asks."""
    after: Literal["best", "every"] = "best"
    """Which validations a copy of the student is kept after: those that score better on the val
    images than any before, as published, or every one."""
    first_epoch: Annotated[int, Field(ge=0)] = 0
    """The epoch from which on copies are kept."""


class PreviousSource(OnlineSource):
    """The weighted sum of the logits of a few earlier selves, drawn anew in each step."""

    Config = PreviousConfig
    version = 1
    needs_validation = True
    config: PreviousConfig

    def __init__(self, config: PreviousConfig) -> None:
        super().__init__(config)
        self._selves: list[SegmentationNetwork] = []

    @property
    def is_ready(self) -> bool:
        """See `LabelSource.is_ready`: once a validation left it an earlier self."""
        return bool(self._selves)

    def validated(self, network: SegmentationNetwork, *, is_best: bool, epoch: int) -> None:
        """See `LabelSource.validated`."""
        from stages.train.loop.teacher import frozen_copy

        if epoch >= self.config.first_epoch and (is_best or self.config.after == "every"):
            self._selves = [*self._selves, frozen_copy(network)][-self.config.keep :]

    def state(self) -> dict[str, Any]:
        """See `LabelSource.state`: the weights of each, the oldest first."""
        return {"selves": [network.state_dict() for network in self._selves]}

    def restore(self, state: Mapping[str, Any], network: SegmentationNetwork) -> None:
        """See `LabelSource.restore`."""
        from stages.train.loop.teacher import frozen_copy

        self._selves = [frozen_copy(network) for _ in state["selves"]]
        for own, weights in zip(self._selves, state["selves"], strict=True):
            own.load_state_dict(weights)

    def label(self, batch: TrainBatch, key: str, sight: Sight) -> PseudoLabels:
        """See `LabelSource.label`; the same members label all crops of a step."""
        from stages.labels.pseudo_labels import PseudoLabels
        from stages.train.step.weak_predictions import predict

        chosen, shares = self._draw(batch.draws.of_step(f"members of {self.name}"))
        images = batch.crops[key].weak
        logits = sum(
            share * predict(self._selves[index], images).float()
            for index, share in zip(chosen.tolist(), shares.tolist(), strict=True)
        )
        return PseudoLabels.from_logits(logits)

    def _draw(self, generator: Generator) -> tuple[Tensor, Tensor]:
        """Positions (k,) of a step's members, k uniform, and their shares, from Dirichlet(1)."""
        import torch

        most = torch.randint(1, self.config.members + 1, (), generator=generator)
        count = min(int(most), len(self._selves))
        chosen = torch.randperm(len(self._selves), generator=generator)[:count]
        # Exponential numbers over their sum are uniform over all shares that sum to 1.
        spans = torch.empty(count, dtype=torch.float64).exponential_(generator=generator)
        return chosen, spans / spans.sum()
