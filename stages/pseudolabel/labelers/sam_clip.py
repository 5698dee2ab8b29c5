"""CLIP labels that follow SAM's masks: each is named as a whole, by what CLIP sees of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from stages.models.clip.clip_weights import ClipConfig
from stages.pseudolabel.labelers._clip_labeler import ClipLabeler

if TYPE_CHECKING:
    from torch import Tensor

    from stages.pseudolabel.labelers.base import ImageBatch


class SamClipConfig(ClipConfig):
    """Keys of the labeler `sam_clip`."""

    classify: Literal["pooled", "features", "crop"] = "pooled"
    """What names a mask: pooled, the mean of the dense probabilities in it; features, the mean of
    the dense features (ZPL); crop, CLIP as it was trained, shown the mask alone on a blank square
    (OVSeg), a forward of the image side a mask."""
    fusion: Literal["soft", "paint"] = "soft"
    """How masks that overlap become pixels: mixed with the dense probabilities, or painted hard,
    small masks over large ones. Masks can harm: choose on the labeled images."""
    sam_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Of `soft`: share of the masks' probabilities, the rest is dense."""
    power: Annotated[float, Field(ge=0, le=64)] = 4.0
    """Of `soft`: masks weigh (predicted IoU x stability) to this power."""


class SamClip(ClipLabeler):
    """Gives masks probabilities, and those to their pixels; the others keep their dense ones."""

    Config = SamClipConfig
    version = 2
    needs_proposals = True
    config: SamClipConfig

    def refined(self, dense: Tensor, images: ImageBatch, index: int) -> Tensor:
        """See `ClipLabeler.refined`."""
        import torch

        from stages.pseudolabel.pixels import pooling

        proposals = images.proposals[index]
        if not proposals.rle:
            return dense
        masks = torch.from_numpy(proposals.masks()).to(dense.device)
        if self.config.classify == "crop":
            height, width = images.sizes[index]
            own = self.crop_probabilities(images.pixels[index, :, :height, :width], masks)
        elif self.config.classify == "features":
            own = self.feature_probabilities(images, index, masks)
        else:
            own = pooling.mask_means(dense, masks)
        if self.config.fusion == "paint":
            return pooling.paint(dense, masks, own)
        quality = torch.tensor(
            [proposals.predicted_iou, proposals.stability_score], device=dense.device
        )
        weights = quality.nan_to_num().clamp(min=0).prod(0) ** self.config.power
        return pooling.soft(dense, masks, own, weights, self.config.sam_share)

    def feature_probabilities(self, images: ImageBatch, index: int, masks: Tensor) -> Tensor:
        """What the mean feature of each mask is like: SAM-based pooling (arXiv 2505.19846).

        Args:
            images: The batch.
            index: Which of its images; it goes through the image side once more.
            masks: (P, H, W) bool.

        Returns:
            (P, C) float, of the channels of the dense probabilities.
        """
        from torch.nn import functional as F

        from stages.pseudolabel.labelers.base import ImageBatch
        from stages.pseudolabel.pixels.pooling import mask_means

        alone = ImageBatch(images.pixels[index : index + 1], (images.sizes[index],))
        (features,) = self.dense_features(alone)
        pooled = F.normalize(mask_means(features, masks), dim=-1)
        return self._softmax(self._scores(self._queries @ pooled.T, 0)).T

    def crop_probabilities(self, image: Tensor, masks: Tensor) -> Tensor:
        """What CLIP takes each mask for, when it is shown nothing else.

        Args:
            image: (3, H, W) uint8.
            masks: (P, H, W) bool.

        Returns:
            (P, C) float, of the channels of the dense probabilities.
        """
        import torch

        from stages.models.clip.towers import whole_px
        from stages.pseudolabel.pixels.mask_crops import masked_crops

        size_px = whole_px(self._clip.network.visual, self.config.window_px)
        normal, found = self._clip.normalize(image.to(masks.device)), []
        for some in torch.split(masks, self.config.batch_size):
            crops = masked_crops(normal, some, size_px)
            cosines = self._queries @ self._clip.encode_images(crops).T
            found.append(self._softmax(self._scores(cosines, 0)).T)
        return torch.cat(found)
