"""The input of one training step.

Shape letters in stages/train: B images of a role, C classes, H and W pixels (S and S in training
crops), N images of a forward pass, F channels of a feature.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from torch import Tensor

from stages.labels.pseudo_labels import PseudoLabels
from stages.models.segmenters.normalization import normalize, normalize_
from stages.train.data.colors import random_colors
from stages.train.data.random_numbers import StepRandom


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
        stored: Stored pseudo-labels by labeler, cropped like the pixels; confidence 0 on padding.
    """

    pixels: Tensor
    valid: Tensor
    stored: Mapping[str, PseudoLabels]

    @cached_property
    def weak(self) -> Tensor:
        """The weak view: (B, 3, S, S) float, normalized."""
        return normalize(self.pixels)


ImageIds = Mapping[str, Sequence[str]]
"""Image ids of a batch, by the keys of `TrainBatch.crops` and `labeled`."""

SECOND_DRAW = "mix"
"""Key of the second draw of the first role's images. Random numbers depend on its spelling."""


@dataclass(frozen=True)
class TrainBatch:
    """All crops of one micro-batch.

    Attributes:
        labeled: The labeled crops.
        crops: Crops by role (unlabeled, ood), then `SECOND_DRAW` if the perturbation needs a second
            draw of the first role; empty in supervised training.
        random: The random numbers of the step.
        image_ids: Ids of the images, for error messages.
    """

    labeled: LabeledBatch
    crops: Mapping[str, CropBatch]
    random: StepRandom
    image_ids: ImageIds = field(default_factory=dict)
    _strong: dict[tuple[str, int], Tensor] = field(default_factory=dict, repr=False)

    @property
    def roles(self) -> tuple[str, ...]:
        """Roles that are learned from, without the second draw."""
        return tuple(key for key in self.crops if key != SECOND_DRAW)

    def paste_source(self, role: str) -> str:
        """Key of the crops whose pixels are pasted into the crops of a role.

        The first role gets its own second draw. Every other role gets the first role, as SemiOVS
        pastes unlabeled pixels into OOD images (arXiv 2507.03302).
        """
        first = self.roles[0]
        return SECOND_DRAW if role == first else first

    def role(self, key: str) -> str:
        """The role of the images behind a key of `crops`."""
        return self.roles[0] if key == SECOND_DRAW else key

    def strong(self, key: str, number: int) -> Tensor:
        """A strong view: the crops in other colors. Repeated calls return the same view.

        Args:
            key: A role, or `SECOND_DRAW`.
            number: Number of the view, from 0; each view has other colors.

        Returns:
            (B, 3, S, S) float, normalized.
        """
        if (key, number) not in self._strong:
            view = random_colors(self.crops[key].pixels, self.random, f"colours of {key} {number}")
            self._strong[key, number] = normalize_(view)
        return self._strong[key, number]
