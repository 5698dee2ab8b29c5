"""Masks of one crop: filters, boxes and non-maximum suppression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from segment_anything.utils.amg import calculate_stability_score, is_box_near_crop_edge
from torch import Tensor
from torch.nn import functional
from torchvision.ops import batched_nms

from stages.propose.generator.crops import Crop
from stages.propose.generator.resampling import MaskResampler
from stages.propose.generator.run_lengths import Counts, run_lengths

_STEP_PX = {
    "cpu": 2**22,
    "cuda": 2**28,
    "mps": 2**26,
}  # mask pixels at a time; on a CPU they fit into a cache


@dataclass(frozen=True)
class Thresholds:
    """Thresholds of the filters for masks, as in `SamAutomaticMaskGenerator`.

    Attributes:
        mask: Pixels with larger logits belong to the mask.
        predicted_iou: Masks must have a larger predicted IoU; 0 turns the filter off.
        stability_score: Masks must have at least this score; 0 turns the filter off.
        stability_offset: How far the threshold of the logits is moved for the stability score.
        nms: Of two boxes with a larger IoU, the one with the lower predicted IoU is dropped.
    """

    mask: float
    predicted_iou: float
    stability_score: float
    stability_offset: float
    nms: float


class PointMasks(NamedTuple):
    """Masks that the decoder predicts for points of a crop, up to three for each point.

    Attributes:
        logits: (M, h, w) at the resolution of the decoder.
        predicted_iou: (M,) float32.
        point: (M,) int64 indices of the crop's points that the masks were predicted for.
    """

    logits: Tensor
    predicted_iou: Tensor
    point: Tensor


@dataclass(frozen=True)
class Candidates:
    """Masks at the resolution of their image.

    Attributes:
        runs: Run lengths of M masks of the image.
        boxes: (M, 4) int64 left, top, right, bottom pixel of the masks, all inclusive.
        predicted_iou: (M,) float32.
        stability_score: (M,) float32; NaN where no logit is above the lower threshold.
        point: (M,) int64 indices of the crop's points that the masks were predicted for.
    """

    runs: list[Counts]
    boxes: Tensor
    predicted_iou: Tensor
    stability_score: Tensor
    point: Tensor

    def __len__(self) -> int:
        return len(self.runs)

    def pick(self, chosen: Tensor) -> Candidates:
        """The masks at these indices, in this order."""
        return Candidates(
            [self.runs[index] for index in chosen.tolist()],
            self.boxes[chosen],
            self.predicted_iou[chosen],
            self.stability_score[chosen],
            self.point[chosen],
        )

    @staticmethod
    def concatenated(parts: list[Candidates]) -> Candidates:
        """The masks of one or more parts."""
        return Candidates(
            [runs for part in parts for runs in part.runs],
            torch.cat([part.boxes for part in parts]),
            torch.cat([part.predicted_iou for part in parts]),
            torch.cat([part.stability_score for part in parts]),
            torch.cat([part.point for part in parts]),
        )


def select(
    masks: PointMasks, crop: Crop, resample: MaskResampler, limits: Thresholds
) -> tuple[Candidates, Tensor]:
    """Selects the masks of a crop that are stable and do not touch its edge.

    The edge of the image does not count.

    Args:
        masks: Masks that passed the threshold of the predicted IoU.
        crop: The crop that they are on.
        resample: Scales the decoder's logits to the crop.
        limits: Thresholds.

    Returns:
        The selected masks, and (M,) bool, True for those of `masks` that were selected.
    """
    height, width = crop.image_px
    left, top, right, bottom = crop.box
    margins = (left, width - right, top, height - bottom)
    step = max(1, _STEP_PX[masks.logits.device.type] // (crop.size_px[0] * crop.size_px[1]))
    parts, selected = [], []
    for logits, predicted_iou, point in zip(
        *(torch.split(field, step) for field in masks), strict=True
    ):
        full = resample(logits)
        stability = calculate_stability_score(full, limits.mask, limits.stability_offset)
        passed = torch.ones_like(point, dtype=torch.bool)
        if limits.stability_score > 0:
            passed = stability >= limits.stability_score
        stable = full[passed] > limits.mask
        boxes = boxes_of(stable)
        inside = ~is_box_near_crop_edge(boxes, list(crop.box), [0, 0, width, height])
        passed[passed.clone()] = inside
        runs = run_lengths(functional.pad(stable[inside], margins))
        boxes = boxes[inside] + torch.tensor([left, top, left, top], device=boxes.device)
        scores = predicted_iou[passed], stability[passed]
        parts.append(Candidates(runs, boxes, *scores, point[passed]))
        selected.append(passed)
    return Candidates.concatenated(parts), torch.cat(selected)


def suppress_overlaps(candidates: Candidates, scores: Tensor, iou: float) -> Candidates:
    """Non-maximum suppression by boxes; the highest scores come first, ordered as by torchvision.

    Args:
        candidates: Masks.
        scores: (M,) float; of two overlapping masks the one with the lower score is dropped.
        iou: Boxes with a larger IoU overlap.
    """
    boxes = candidates.boxes.float()
    kept = batched_nms(boxes, scores, torch.zeros_like(scores, dtype=torch.int64), iou)
    return candidates.pick(kept)


def boxes_of(masks: Tensor) -> Tensor:
    """Left, top, right and bottom pixel of masks (M, H, W) bool: (M, 4) int64; 0 if empty."""
    pixels = masks.view(torch.uint8)  # amax() of bytes is far faster than any() of bools
    rows, columns = pixels.amax(2), pixels.amax(1)
    top, left = rows.argmax(1), columns.argmax(1)
    bottom = rows.shape[1] - 1 - rows.flip(1).argmax(1)
    right = columns.shape[1] - 1 - columns.flip(1).argmax(1)
    boxes = torch.stack([left, top, right, bottom], dim=1)
    return boxes * rows.amax(1, keepdim=True)
