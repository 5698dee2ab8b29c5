"""Cached predictions of the student and the EMA teacher on the weak views of one step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

from stages.labels.pseudo_labels import PseudoLabels

if TYPE_CHECKING:
    from torch import Tensor

    from stages.models.segmenters.networks.base import SegmentationNetwork
    from stages.train.data.batch import TrainBatch

NetworkName = Literal["student", "ema"]
"""The network in training, or the moving average of its weights."""


class WeakPredictions:
    """Predictions on weak views, without gradient; each is computed once, when first needed.

    Args:
        student: The network in training.
        teacher: Its moving average, in eval mode.
        batch: The crops of the step.
    """

    def __init__(
        self, student: SegmentationNetwork, teacher: SegmentationNetwork, batch: TrainBatch
    ) -> None:
        self._networks = {"student": student, "ema": teacher}
        self._batch = batch
        self._cached: dict[tuple[NetworkName, str], PseudoLabels] = {}
        self.is_finite = torch.tensor(True)
        """Scalar bool: whether all logits so far were finite. A confidence that is NaN would
        otherwise only count as too low."""

    def of(self, network: NetworkName, key: str) -> PseudoLabels:
        """A network's prediction on the crops of a key, in eval mode unless `store` came before.

        The student is left in eval mode.

        Returns:
            (B, S, S) labels; the confidence is the probability of the class.
        """
        if (network, key) not in self._cached:
            logits = predict(self._networks[network], self._batch.crops[key].weak)
            self.store(network, key, logits)
        return self._cached[network, key]

    def store(self, network: NetworkName, key: str, logits: Tensor) -> None:
        """Stores logits (B, C, S, S) that were computed anyway as the prediction."""
        self._cached[network, key] = self.labels_of(logits.detach())

    def labels_of(self, logits: Tensor) -> PseudoLabels:
        """The labels that logits (B, C, S, S) of any network mean in this step."""
        self.is_finite = logits.isfinite().all() & self.is_finite.to(logits.device)
        return PseudoLabels.from_logits(logits)


def predict(network: SegmentationNetwork, images: Tensor) -> Tensor:
    """Logits (N, C, H, W) in eval mode, without gradient, also inside a step under autocast."""
    with torch.no_grad():
        logits: Tensor = network.eval()(images)
    # Autocast caches the weights that it casts. These were cast without gradient, and the training
    # passes of the same step would reuse them.
    torch.clear_autocast_cache()
    return logits
