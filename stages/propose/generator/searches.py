"""Searches of a crop: the points to prompt SAM with, and the masks that are kept."""

from __future__ import annotations

import torch
from segment_anything.utils.amg import calculate_stability_score
from torch import Tensor
from torch.nn import functional

from stages.propose.generator.candidates import (
    Candidates,
    PointMasks,
    Thresholds,
    select,
    suppress_overlaps,
)
from stages.propose.generator.crops import Crop
from stages.propose.generator.resampling import MaskResampler

_COARSE = 2  # step of the coarse grid, whose points come first
_DENSE = 16  # points a side from which neighbours tend to be on the same object
_NEAR = 3  # steps of the grid around the points of the best masks
_MARGIN = 0.1  # how much the stability score may increase at full size


class ExactSearch:
    """Prompts with every point and filters masks at full size, as `SamAutomaticMaskGenerator` does.

    Args:
        crop: The crop to search.
        mask_px: Height and width of the decoder's masks.
        limits: Thresholds of the masks.
        device: Device of the points.
    """

    def __init__(
        self, crop: Crop, mask_px: tuple[int, int], limits: Thresholds, device: torch.device
    ) -> None:
        self.points = torch.from_numpy(crop.points()).to(device)
        """(P, 2) float64 x and y in the encoder's input."""
        self._crop, self._mask_px, self._limits = crop, mask_px, limits
        self._resample = MaskResampler(
            mask_px, crop.encoder_px, crop.input_px, crop.size_px, device
        )
        self._parts: list[Candidates] = []
        self._remaining = torch.ones(len(self.points), dtype=torch.bool, device=device)

    def next_points(self) -> Tensor:
        """Indices of the points to prompt with next, int64; empty at the end."""
        return self._take(self._remaining)

    def add(self, masks: PointMasks) -> None:
        """Adds masks of some of the points; they passed the threshold of the predicted IoU."""
        self._keep(masks)

    def result(self) -> Candidates:
        """The masks so far, the highest predicted IoU first."""
        kept = Candidates.concatenated(self._parts)
        return suppress_overlaps(kept, kept.predicted_iou, self._limits.nms)

    def _keep(self, masks: PointMasks) -> Tensor:
        """Keeps the masks that pass; returns (M,) bool, True for these."""
        candidates, selected = select(masks, self._crop, self._resample, self._limits)
        self._parts.append(candidates)
        return selected

    def _take(self, chosen: Tensor) -> Tensor:
        self._remaining = self._remaining & ~chosen
        return chosen.nonzero()[:, 0]


class FastSearch(ExactSearch):
    """Skips points that masks already cover, but searches around the points of the best masks.

    The points of a coarse grid come first, then, grid by grid, the points in between that no mask
    covers. Neighbouring points on an object tend to give the same mask, of which the one with the
    highest predicted IoU stays. So each round also adds the neighbours of the points whose masks
    would stay, until there are no new ones: a hill climb to the point with the highest predicted
    IoU. Masks that are far from stable at the decoder's resolution are never scaled up.
    """

    def __init__(
        self, crop: Crop, mask_px: tuple[int, int], limits: Thresholds, device: torch.device
    ) -> None:
        super().__init__(crop, mask_px, limits, device)
        self._covered = torch.zeros_like(self._remaining)
        step = _COARSE if crop.points_per_side >= _DENSE else 1
        side = torch.arange(crop.points_per_side, device=device) % step
        grids = side[:, None] * step + side  # number of the coarse grid of a point
        self._grids = [(grids == grid).flatten() for grid in range(step**2)]
        strides = [side / crop.encoder_px for side in mask_px]
        self._unpadded = [
            -int(-px * stride // 1) for px, stride in zip(crop.input_px, strides, strict=True)
        ]
        x, y = (self.points * torch.tensor(strides[::-1], device=device)).long().T
        self._mask_positions = y, x

    def next_points(self) -> Tensor:
        """See `ExactSearch.next_points`."""
        chosen = self._near_best() & self._remaining
        while self._grids:
            chosen = chosen | (self._grids.pop(0) & ~self._covered & self._remaining)
            if chosen.any():
                break
        return self._take(chosen)

    def add(self, masks: PointMasks) -> None:
        """See `ExactSearch.add`."""
        limits, (height, width) = self._limits, self._unpadded
        unpadded = masks.logits[:, :height, :width]
        stability = calculate_stability_score(unpadded, limits.mask, limits.stability_offset)
        promising = stability >= limits.stability_score - _MARGIN
        masks = PointMasks(*(field[promising] for field in masks))
        at_points = masks.logits[self._keep(masks)][:, *self._mask_positions]
        self._covered = self._covered | (at_points > limits.mask).any(0)

    def _near_best(self) -> Tensor:
        """(P,) bool, True for the points around those whose masks would stay."""
        side = self._crop.points_per_side
        best = torch.zeros(1, side, side, device=self.points.device)
        if self._parts:
            best.view(-1)[self.result().point] = 1
        return functional.max_pool2d(best, 2 * _NEAR + 1, 1, _NEAR).view(-1) > 0
