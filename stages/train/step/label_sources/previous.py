"""Labels by a random ensemble of earlier weights (PrevMatch, arXiv 2405.20610)."""

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
    from stages.train.step.schedule import Length
    from stages.train.step.weak_predictions import WeakPredictions


class PreviousConfig(OnlineConfig):
    """Keys of the source `previous`."""

    threshold: Threshold = 0.9
    """Least confidence of a pixel that counts."""
    schedule: Schedule = "triangle"
    """See `LabelSourceConfig`."""
    keep: Annotated[int, Field(ge=1)] = 8
    """Number of earlier networks to keep; a new one replaces the oldest."""
    members: Annotated[int, Field(ge=1)] = 3
    """Largest number of them in a step's ensemble."""
    after: Literal["best", "every"] = "best"
    """The validations after which a copy of the averaged weights is kept: those with a new best
    score on the val images, as published, or every one."""
    first_epoch: Annotated[int, Field(ge=0)] = 0
    """The first epoch in which copies are kept."""


class PreviousSource(OnlineSource):
    """Labels by the weighted sum of the logits of a few earlier networks, drawn for each step."""

    Config = PreviousConfig
    version = 1
    needs_validation = True
    config: PreviousConfig

    def __init__(self, config: PreviousConfig) -> None:
        super().__init__(config)
        self._networks: list[SegmentationNetwork] = []

    def doubts(self, length: Length) -> list[str]:
        """See `LabelSource.doubts`: no network is kept before the last step."""
        found = super().doubts(length)
        first = self.config.first_epoch
        if not length.has_early_validation:
            found.append("the only validation is the last one, so no earlier network ever labels")
        elif length.epochs is not None and first >= length.epochs:
            found.append(f"`first_epoch: {first}` lies behind the {length.epochs} epochs")
        return found

    @property
    def is_ready(self) -> bool:
        """See `LabelSource.is_ready`: after the first validation that kept a copy."""
        return bool(self._networks)

    def validated(self, network: SegmentationNetwork, *, is_best: bool, epoch: int) -> None:
        """See `LabelSource.validated`."""
        from stages.models.segmenters.networks.base import frozen_copy

        if epoch >= self.config.first_epoch and (is_best or self.config.after == "every"):
            self._networks = [*self._networks, frozen_copy(network)][-self.config.keep :]

    def state(self) -> dict[str, Any]:
        """See `LabelSource.state`: the weights of each network, the oldest first."""
        return {"selves": [network.state_dict() for network in self._networks]}

    def restore(self, state: Mapping[str, Any], network: SegmentationNetwork) -> None:
        """See `LabelSource.restore`."""
        from stages.models.segmenters.networks.base import frozen_copy

        self._networks = [frozen_copy(network) for _ in state["selves"]]
        for own, weights in zip(self._networks, state["selves"], strict=True):
            own.load_state_dict(weights)

    def label(self, batch: TrainBatch, key: str, weak: WeakPredictions) -> PseudoLabels:
        """See `LabelSource.label`; the same members label all crops of a step."""
        from stages.train.step.weak_predictions import predict

        chosen, shares = self._draw(batch.random.of_step(f"members of {self.name}"))
        images = batch.crops[key].weak
        logits = sum(
            share * predict(self._networks[index], images).float()
            for index, share in zip(chosen.tolist(), shares.tolist(), strict=True)
        )
        return weak.labels_of(logits)

    def _draw(self, generator: Generator) -> tuple[Tensor, Tensor]:
        """Indexes (k,) of a step's members, k uniform, and their weights, from Dirichlet(1)."""
        import torch

        most = torch.randint(1, self.config.members + 1, (), generator=generator)
        count = min(int(most), len(self._networks))
        chosen = torch.randperm(len(self._networks), generator=generator)[:count]
        # Exponential numbers divided by their sum have a Dirichlet(1) distribution.
        spans = torch.empty(count, dtype=torch.float64).exponential_(generator=generator)
        return chosen, spans / spans.sum()
