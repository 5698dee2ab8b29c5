"""What one training step reads.

The legend of shapes for this whole package: B images of a role, C classes, H and W
pixels (S and S in training crops), N images a forward pass.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from stages.pseudolabel.pseudo_labels import PseudoLabels


@dataclass(frozen=True)
class LabeledBatch:
    """Labeled crops.

    Attributes:
        images: (B, 3, S, S) float, normalized.
        mask: (B, S, S) int64 class ids, 255 = ignore and padding.
    """

    images: Tensor
    mask: Tensor


@dataclass(frozen=True)
class CropBatch:
    """Crops without hand-made labels, in three views of the same geometry.

    Attributes:
        weak: (B, 3, S, S) float, normalized.
        strong: Two strong views like `weak`, each with colours of its own.
        valid: (B, S, S) bool, False on padding.
        stored: Labels of stage one by labeler, moved with the crop; confidence 0 on padding.
    """

    weak: Tensor
    strong: tuple[Tensor, Tensor]
    valid: Tensor
    stored: Mapping[str, PseudoLabels]


ImageIds = Mapping[str, Sequence[str]]
"""Whose crops a batch holds: ids by the keys of `TrainBatch.crops`, and `labeled`."""

MIX = "mix"
"""Key of the second draw of the first role's images."""


@dataclass(frozen=True)
class TrainBatch:
    """All crops of one step.

    Attributes:
        labeled: The labeled crops.
        crops: By the role of their images (unlabeled, ood), and the second draw `MIX` of the first
            of these roles; empty in supervised training.
        boxes: (B, S, S) bool for each strong view, True = pasted; the same for every role.
        image_ids: Whose crops they are; for messages.
    """

    labeled: LabeledBatch
    crops: Mapping[str, CropBatch]
    boxes: tuple[Tensor, Tensor]
    image_ids: ImageIds = field(default_factory=dict)

    @property
    def roles(self) -> tuple[str, ...]:
        """Roles that learn from labels; not the second draw."""
        return tuple(key for key in self.crops if key != MIX)

    def partner(self, role: str) -> str:
        """Key of the crops that are pasted into those of a role.

        The first role gets its own second draw, every other one the first role, as SemiOVS pastes
        unlabeled pixels into OOD images (arXiv 2507.03302).
        """
        first = self.roles[0]
        return MIX if role == first else first
