"""Dense CLIP labels that follow SAM's masks: what CLIP sees is pooled over each mask."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from stages.pseudolabel.clip_labeler import ClipLabeler
from stages.pseudolabel.clip_weights import ClipConfig

if TYPE_CHECKING:
    from torch import Tensor

    from stages.pseudolabel.pseudo_labels import ImageBatch


class SamClipConfig(ClipConfig):
    """Keys of the labeler `sam_clip`."""

    fusion: Literal["soft", "paint"] = "soft"
    """How masks that overlap become pixels: mixed with the dense probabilities, or painted hard,
    small masks over large ones. Masks can harm: choose on the labeled images."""
    sam_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Of `soft`: share of the masks' probabilities, the rest is dense."""
    power: Annotated[float, Field(ge=0, le=64)] = 4.0
    """Of `soft`: masks weigh (predicted IoU x stability) to this power."""


class SamClip(ClipLabeler):
    """Averages dense probabilities over masks; pixels that no mask covers keep their own."""

    Config = SamClipConfig
    version = 2
    needs_proposals = True
    config: SamClipConfig

    def refined(self, dense: Tensor, images: ImageBatch, index: int) -> Tensor:
        """See `ClipLabeler.refined`."""
        import torch

        from stages.pseudolabel import pooling

        proposals = images.proposals[index]
        masks = torch.from_numpy(proposals.masks()).to(dense.device)
        if self.config.fusion == "paint":
            return pooling.paint(dense, masks)
        quality = torch.tensor(
            [proposals.predicted_iou, proposals.stability_score], device=dense.device
        )
        weights = quality.nan_to_num().clamp(min=0).prod(0) ** self.config.power
        return pooling.soft(dense, masks, weights, self.config.sam_share)
