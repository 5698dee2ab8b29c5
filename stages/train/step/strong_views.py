"""Strong views with pixels of other crops pasted in, and all that belongs to these pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from stages.labels.pseudo_labels import PseudoLabels
from stages.models.segmenters.normalization import normalize
from stages.train.data.batch import TrainBatch
from stages.train.data.colors import strong_view
from stages.train.distributed import whole_batch
from stages.train.step.pasting import cutmix_boxes, paste


@dataclass(frozen=True)
class Mixture:
    """A view of a role's crops.

    Attributes:
        images: (B, 3, S, S) float.
        valid: (B, S, S) bool, False on padding.
        labels: (B, S, S) labels of each source, by its name.
    """

    images: Tensor
    valid: Tensor
    labels: Mapping[str, PseudoLabels]

    def pasted(self, other: Mixture, box: Tensor) -> Mixture:
        """This view with the pixels inside a box taken from another.

        Args:
            other: A view with labels of the same sources.
            box: (B, S, S) bool, True = take from `other`.
        """
        return Mixture(
            paste(self.images, other.images, box),
            torch.where(box, other.valid, self.valid),
            {name: own.pasted(other.labels[name], box) for name, own in self.labels.items()},
        )

    def seen(self, batch: TrainBatch, role: str, recolor: bool) -> Mixture:
        """Of pixels in [0, 1], mixed before their colours change, the normalized strong view."""
        pixels = self.images
        if recolor:
            pixels = strong_view(pixels, batch.draws, f"colours of mixed {role}")
        return Mixture(normalize(pixels), self.valid, self.labels)

    def of_batch(self, places: Tensor) -> Mixture:
        """The views of other images of the whole batch, whichever process has them.

        Args:
            places: (B,) int64 positions in the batch, as `Draws.images`.
        """

        def there(own: Tensor) -> Tensor:
            return whole_batch(own)[places]

        return Mixture(
            there(self.images),
            there(self.valid.byte()).bool(),
            {
                name: PseudoLabels(there(labels.mask), there(labels.confidence))
                for name, labels in self.labels.items()
            },
        )


def strong_mixture(
    batch: TrainBatch, key: str, number: int, labels: Mapping[str, PseudoLabels]
) -> Mixture:
    """A strong view of the crops of a key, with nothing pasted in yet.

    Args:
        batch: The step's crops.
        key: A role, or the second draw.
        number: Which strong view, from 0.
        labels: Of its weak view, by source.
    """
    return Mixture(batch.strong(key, number), batch.crops[key].valid, labels)


def boxes(batch: TrainBatch, role: str, number: int) -> Tensor:
    """The CutMix boxes of a strong view, (B, S, S) bool: the same for every role."""
    valid = batch.crops[role].valid
    return cutmix_boxes(valid.shape[-1], batch.draws, f"boxes {number}").to(valid.device)
