"""Masks of one crop between the decoder and the manifest: filters, boxes, duplicates."""

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

_STEP_PX = {"cpu": 2**22, "cuda": 2**28}  # of masks at a time; on a CPU they should stay in a cache


@dataclass(frozen=True)
class Thresholds:
    """What a mask has to pass (methods.md section 10, steps 4 to 6).

    Attributes:
        mask: Logits above it are the mask.
        predicted_iou: Masks need more of it; 0 lets all pass.
        stability_score: Masks need as much of it; 0 lets all pass.
        stability_offset: How far the cut of the logits is moved for the score.
        nms: Of boxes with a larger IoU the one of higher predicted IoU stays.
    """

    mask: float
    predicted_iou: float
    stability_score: float
    stability_offset: float
    nms: float


class Answers(NamedTuple):
    """What the decoder says to some points of a crop, up to three masks each.

    Attributes:
        logits: (M, h, w) as the decoder draws them.
        predicted_iou: (M,) float32.
        point: (M,) int64, which of the crop's points was asked about.
    """

    logits: Tensor
    predicted_iou: Tensor
    point: Tensor


@dataclass(frozen=True)
class Candidates:
    """Masks of an image.

    Attributes:
        runs: Their run lengths in the image.
        boxes: (M, 4) int64, left, top, right, bottom in the image, right and bottom inside.
        predicted_iou: (M,) float32.
        stability_score: (M,) float32; not a number where no logit is above the lower cut.
        point: (M,) int64, which of its crop's points was asked about.
    """

    runs: list[Counts]
    boxes: Tensor
    predicted_iou: Tensor
    stability_score: Tensor
    point: Tensor

    def __len__(self) -> int:
        return len(self.runs)

    def pick(self, chosen: Tensor) -> Candidates:
        """Those at the indices, in their order."""
        return Candidates(
            [self.runs[index] for index in chosen.tolist()],
            self.boxes[chosen],
            self.predicted_iou[chosen],
            self.stability_score[chosen],
            self.point[chosen],
        )

    @staticmethod
    def joined(parts: list[Candidates]) -> Candidates:
        """All of at least one."""
        return Candidates(
            [runs for part in parts for runs in part.runs],
            torch.cat([part.boxes for part in parts]),
            torch.cat([part.predicted_iou for part in parts]),
            torch.cat([part.stability_score for part in parts]),
            torch.cat([part.point for part in parts]),
        )


def select(
    answers: Answers, crop: Crop, resample: MaskResampler, limits: Thresholds
) -> tuple[Candidates, Tensor]:
    """The masks of a crop that are stable and not cut by its edge.

    Args:
        answers: Those that passed the predicted IoU.
        crop: Where they are.
        resample: Scales the decoder's logits to the crop.
        limits: What to pass.

    Returns:
        The masks, and which of the answers they are, (M,) bool.
    """
    height, width = crop.image_px
    left, top, right, bottom = crop.box
    margins = (left, width - right, top, height - bottom)
    step = max(1, _STEP_PX[answers.logits.device.type] // (crop.size_px[0] * crop.size_px[1]))
    parts, which = [], []
    for logits, predicted_iou, point in zip(
        *(torch.split(field, step) for field in answers), strict=True
    ):
        full = resample(logits)
        stability = calculate_stability_score(full, limits.mask, limits.stability_offset)
        passed = torch.ones_like(point, dtype=torch.bool)
        if limits.stability_score > 0:
            passed = stability >= limits.stability_score
        masks = full[passed] > limits.mask
        boxes = boxes_of(masks)
        inside = ~is_box_near_crop_edge(boxes, list(crop.box), [0, 0, width, height])
        passed[passed.clone()] = inside
        runs = run_lengths(functional.pad(masks[inside], margins))
        boxes = boxes[inside] + torch.tensor([left, top, left, top], device=boxes.device)
        scores = predicted_iou[passed], stability[passed]
        parts.append(Candidates(runs, boxes, *scores, point[passed]))
        which.append(passed)
    return Candidates.joined(parts), torch.cat(which)


def without_duplicates(candidates: Candidates, scores: Tensor, iou: float) -> Candidates:
    """By non-maximum suppression of boxes: the highest scores first, as torchvision orders them."""
    boxes = candidates.boxes.float()
    kept = batched_nms(boxes, scores, torch.zeros_like(scores, dtype=torch.int64), iou)
    return candidates.pick(kept)


def boxes_of(masks: Tensor) -> Tensor:
    """Left, top, right and bottom pixel of masks (M, H, W) bool: (M, 4) int64, empty ones 0."""
    plain = masks.view(torch.uint8)  # its maximum is far faster than any()
    rows, columns = plain.amax(2), plain.amax(1)
    top, left = rows.argmax(1), columns.argmax(1)
    bottom = rows.shape[1] - 1 - rows.flip(1).argmax(1)
    right = columns.shape[1] - 1 - columns.flip(1).argmax(1)
    boxes = torch.stack([left, top, right, bottom], dim=1)
    return boxes * rows.amax(1, keepdim=True)
