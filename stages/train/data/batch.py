"""What one training step reads.

The legend of shapes for this whole package: B images of a role, C classes, H and W
pixels (S and S in training crops), N images a forward pass, F channels of a feature.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from torch import Tensor

from stages.labels.pseudo_labels import PseudoLabels
from stages.models.segmenters.normalization import normalize, normalize_
from stages.train.data.colors import strong_view
from stages.train.data.random_numbers import Draws


@dataclass(frozen=True)
class LabeledBatch:
    """Labeled crops.

    Attributes:
        pixels: (B, 3, S, S) float in [0, 1], 0 on padding.
        mask: (B, S, S) int64 class ids, 255 = ignore and padding.
    """

    pixels: Tensor
    mask: Tensor

    @cached_property
    def images(self) -> Tensor:
        """(B, 3, S, S) float, normalized."""
        return normalize(self.pixels)


@dataclass(frozen=True)
class CropBatch:
    """Crops without hand-made labels.

    Attributes:
        pixels: (B, 3, S, S) float in [0, 1], 0 on padding.
        valid: (B, S, S) bool, False on padding.
        stored: Labels of stage one by labeler, moved with the crop; confidence 0 on padding.
    """

    pixels: Tensor
    valid: Tensor
    stored: Mapping[str, PseudoLabels]

    @cached_property
    def weak(self) -> Tensor:
        """The weak view: (B, 3, S, S) float, normalized."""
        return normalize(self.pixels)


ImageIds = Mapping[str, Sequence[str]]
"""Whose crops a batch holds: ids by the keys of `TrainBatch.crops`, and `labeled`."""

MIX = "mix"
"""Key of the second draw of the first role's images."""


@dataclass(frozen=True)
class TrainBatch:
    """All crops of one step.

    Attributes:
        labeled: The labeled crops.
        crops: By the role of their images (unlabeled, ood), and where a perturbation wants one the
            second draw `MIX` of the first of these roles; empty in supervised training.
        draws: The step's random numbers.
        image_ids: Whose crops they are; for messages.
    """

    labeled: LabeledBatch
    crops: Mapping[str, CropBatch]
    draws: Draws
    image_ids: ImageIds = field(default_factory=dict)
    _strong: dict[tuple[str, int], Tensor] = field(default_factory=dict, repr=False)

    @property
    def roles(self) -> tuple[str, ...]:
        """Roles that learn from labels; not the second draw."""
        return tuple(key for key in self.crops if key != MIX)

    def partner(self, role: str) -> str:
        """Key of the crops that boxes of a role's crops are filled from.

        The first role gets its own second draw, every other one the first role, as SemiOVS pastes
        unlabeled pixels into OOD images (arXiv 2507.03302).
        """
        first = self.roles[0]
        return MIX if role == first else first

    def role(self, key: str) -> str:
        """The role of the images that a key's crops come from."""
        return self.roles[0] if key == MIX else key

    def strong(self, key: str, number: int) -> Tensor:
        """A strong view: the crops of a key in other colours, the same ones whenever asked.

        Args:
            key: A role, or `MIX`.
            number: Which view, from 0; each has colours of its own.

        Returns:
            (B, 3, S, S) float, normalized.
        """
        if (key, number) not in self._strong:
            colours = f"colours of {key} {number}"
            view = strong_view(self.crops[key].pixels, self.draws, colours)
            self._strong[key, number] = normalize_(view)
        return self._strong[key, number]
