"""What the student and its moving average see in the weak views of a step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

from stages.labels.pseudo_labels import PseudoLabels

if TYPE_CHECKING:
    from torch import Tensor

    from stages.models.segmenters.networks.base import SegmentationNetwork
    from stages.train.data.batch import TrainBatch

Observer = Literal["student", "ema"]
"""The network in training, or the moving average of its weights."""


class Sight:
    """Labels of weak views, each made once and only if somebody asks, without gradient.

    Args:
        student: The network in training.
        teacher: Its moving average, in eval mode.
        batch: The step's crops.
    """

    def __init__(
        self, student: SegmentationNetwork, teacher: SegmentationNetwork, batch: TrainBatch
    ) -> None:
        self._networks = {"student": student, "ema": teacher}
        self._batch = batch
        self._seen: dict[tuple[Observer, str], PseudoLabels] = {}

    def of(self, observer: Observer, key: str) -> PseudoLabels:
        """What a network sees in the crops of a key, in eval mode unless `note` said otherwise.

        The student is left in eval mode.

        Returns:
            (B, S, S) labels; the confidence is the probability of the class.
        """
        if (observer, key) not in self._seen:
            self.note(observer, key, predict(self._networks[observer], self._batch.crops[key].weak))
        return self._seen[observer, key]

    def note(self, observer: Observer, key: str, logits: Tensor) -> None:
        """Takes note of what a network said of the crops of a key anyway: logits (B, C, S, S)."""
        self._seen[observer, key] = PseudoLabels.from_logits(logits.detach())


def predict(network: SegmentationNetwork, images: Tensor) -> Tensor:
    """Logits (N, C, H, W) in eval mode, without gradient, also inside a step under autocast."""
    with torch.no_grad():
        logits: Tensor = network.eval()(images)
    # Autocast keeps the weights it has cast. These know no gradient, and the training passes of
    # the same step would use them.
    torch.clear_autocast_cache()
    return logits
