"""CLIP labels that follow SAM masks: CLIP classifies each mask as a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from stages.models.clip.clip_weights import ClipConfig
from stages.pseudolabel.labelers._clip_labeler import ClipLabeler

if TYPE_CHECKING:
    from torch import Tensor

    from stages.pseudolabel.labelers.base import ImageBatch


class SamClipConfig(ClipConfig):
    """Keys of the labeler `sam_clip`."""

    classify: Literal["pooled", "features", "crop"] = "pooled"
    """How a mask is classified: pooled, by the mean of its dense probabilities; features, by the
    mean of its dense features (ZPL); crop, by CLIP on a crop that is blank outside the mask
    (OVSeg), which takes one forward pass of the image encoder per mask."""
    fusion: Literal["soft", "paint"] = "soft"
    """How overlapping masks become pixels: soft, mixed with the dense probabilities; paint, small
    masks over large ones. Masks can lower the scores: compare on the labeled images."""
    sam_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    """For `soft`: share of the masks' probabilities; the rest is dense probabilities."""
    power: Annotated[float, Field(ge=0, le=64)] = 4.0
    """For `soft`: the weight of a mask is (predicted IoU x stability) to this power."""

    @model_validator(mode="after")
    def _stretches_maps_only(self) -> Self:
        if self.maps == "min-max" and self.classify != "pooled":
            raise ValueError(
                f"leave out `maps`: `classify: {self.classify}` compares whole masks with texts, "
                "which have no map; or use `classify: pooled`"
            )
        return self


class SamClip(ClipLabeler):
    """Classifies SAM masks with CLIP; pixels outside all masks keep their dense probabilities."""

    Config = SamClipConfig
    version = 3
    needs_proposals = True
    config: SamClipConfig

    @property
    def resizes(self) -> bool:
        """See `Labeler.resizes`; crops of masks are resized too."""
        return super().resizes or self.config.classify == "crop"

    def refined(self, dense: Tensor, images: ImageBatch, index: int) -> Tensor:
        """See `ClipLabeler.refined`."""
        import torch

        from stages.pseudolabel.pixels import pooling

        proposals = images.proposals[index]
        if not proposals.rle:
            return dense
        masks = torch.from_numpy(proposals.masks()).to(dense.device)
        if self.config.classify == "crop":
            own = self.crop_probabilities(images.original(index), masks)
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
        """Probabilities from the mean feature of each mask: SAM-based pooling (arXiv 2505.19846).

        Args:
            images: The batch.
            index: Position of the image in the batch; it is encoded once more.
            masks: (P, H, W) bool.

        Returns:
            (P, C) float, with the channels of the dense probabilities.
        """
        from torch.nn import functional as F

        from stages.pseudolabel.labelers.base import ImageBatch
        from stages.pseudolabel.pixels.pooling import mask_means

        image = ImageBatch(
            images.pixels[index : index + 1],
            (images.sizes[index],),
            originals=images.originals[index : index + 1],
        )
        (features,) = self.dense_features(image)
        pooled = F.normalize(mask_means(features, masks), dim=-1)
        return self._softmax(self._scores(self._queries @ pooled.T, 0)).T

    def crop_probabilities(self, image: Tensor, masks: Tensor) -> Tensor:
        """Probabilities from a crop of each mask, blank outside the mask (arXiv 2210.04150).

        Args:
            image: (3, H, W) uint8.
            masks: (P, h, w) bool, of any size; they are brought to the size of the image.

        Returns:
            (P, C) float, with the channels of the dense probabilities.
        """
        import torch
        from torch.nn import functional as F

        from stages.models.clip.towers import whole_px
        from stages.pseudolabel.pixels.mask_crops import masked_crops

        size_px = whole_px(self._clip.network.visual, self.config.window_px)
        normal, found = self._clip.normalize(image.to(masks.device)), []
        for some in torch.split(masks, self.config.batch_size):
            if some.shape[1:] != image.shape[1:]:
                fine = F.interpolate(some[:, None].float(), image.shape[1:], mode="nearest-exact")
                some = fine[:, 0] > 0
            crops = masked_crops(normal, some, size_px)
            cosines = self._queries @ self._clip.encode_images(crops).T
            found.append(self._softmax(self._scores(cosines, 0)).T)
        return torch.cat(found)
