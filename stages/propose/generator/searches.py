"""Which points of a crop are asked about, and what is kept of the answers."""

from __future__ import annotations

import torch
from segment_anything.utils.amg import calculate_stability_score
from torch import Tensor
from torch.nn import functional

from stages.propose.generator.candidates import (
    Answers,
    Candidates,
    Thresholds,
    select,
    without_duplicates,
)
from stages.propose.generator.crops import Crop
from stages.propose.generator.resampling import MaskResampler

_COARSE = 2  # every so many points a side are asked about first
_DENSE = 16  # points a side from which on neighbours are on the same objects
_NEAR = 3  # steps of the grid around the points of the best masks
_MARGIN = 0.1  # what stability may gain at full size; all masks below are dropped before


class ExactSearch:
    """Asks about every point and looks at every mask in full, as `SamAutomaticMaskGenerator` does.

    Args:
        crop: To search.
        mask_px: Height and width of the decoder's masks.
        limits: What a mask has to pass.
        device: For the points.
    """

    def __init__(
        self, crop: Crop, mask_px: tuple[int, int], limits: Thresholds, device: torch.device
    ) -> None:
        self.points = torch.from_numpy(crop.points()).to(device)
        """(P, 2) float64, x and y in the encoder's input."""
        self._crop, self._mask_px, self._limits = crop, mask_px, limits
        self._resample = MaskResampler(
            mask_px, crop.encoder_px, crop.input_px, crop.size_px, device
        )
        self._parts: list[Candidates] = []
        self._unasked = torch.ones(len(self.points), dtype=torch.bool, device=device)

    def ask(self) -> Tensor:
        """Indices of the points to ask about next, int64; none at the end."""
        return self._taken(self._unasked)

    def tell(self, answers: Answers) -> None:
        """Takes answers to some of the points, of masks that passed the predicted IoU."""
        self._keep(answers)

    def found(self) -> Candidates:
        """The masks so far, the surest first."""
        joined = Candidates.joined(self._parts)
        return without_duplicates(joined, joined.predicted_iou, self._limits.nms)

    def _keep(self, answers: Answers) -> Tensor:
        """Which of the answers are masks to keep, (M,) bool."""
        masks, kept = select(answers, self._crop, self._resample, self._limits)
        self._parts.append(masks)
        return kept

    def _taken(self, chosen: Tensor) -> Tensor:
        self._unasked = self._unasked & ~chosen
        return chosen.nonzero()[:, 0]


class FastSearch(ExactSearch):
    """Leaves out points that masks already cover, but looks around the points of the best masks.

    The points of a coarse grid come first, then, grid by grid, those in between that no mask
    covers. Neighbours on an object tend to get the same masks, of which the surest stays: so in
    each round, and until there are none left, the neighbours of the points whose masks would stay
    are asked about as well, which climbs to where SAM is surest. Masks that are far from stable at
    the decoder's resolution are never scaled up.
    """

    def __init__(
        self, crop: Crop, mask_px: tuple[int, int], limits: Thresholds, device: torch.device
    ) -> None:
        super().__init__(crop, mask_px, limits, device)
        self._covered = torch.zeros_like(self._unasked)
        step = _COARSE if crop.points_per_side >= _DENSE else 1
        side = torch.arange(crop.points_per_side, device=device) % step
        grids = side[:, None] * step + side  # which coarse grid a point is of
        self._grids = [(grids == grid).flatten() for grid in range(step**2)]
        strides = [side / crop.encoder_px for side in mask_px]
        self._unpadded = [
            -int(-px * stride // 1) for px, stride in zip(crop.input_px, strides, strict=True)
        ]
        x, y = (self.points * torch.tensor(strides[::-1], device=device)).long().T
        self._places = y, x

    def ask(self) -> Tensor:
        """See `ExactSearch.ask`."""
        chosen = self._near_best() & self._unasked
        while self._grids:
            chosen = chosen | (self._grids.pop(0) & ~self._covered & self._unasked)
            if chosen.any():
                break
        return self._taken(chosen)

    def tell(self, answers: Answers) -> None:
        """See `ExactSearch.tell`."""
        limits, (height, width) = self._limits, self._unpadded
        seen = answers.logits[:, :height, :width]
        stability = calculate_stability_score(seen, limits.mask, limits.stability_offset)
        promising = stability >= limits.stability_score - _MARGIN
        answers = Answers(*(field[promising] for field in answers))
        at_points = answers.logits[self._keep(answers)][:, *self._places]
        self._covered = self._covered | (at_points > limits.mask).any(0)

    def _near_best(self) -> Tensor:
        """(P,) bool, the points around those whose masks would stay."""
        side = self._crop.points_per_side
        best = torch.zeros(1, side, side, device=self.points.device)
        if self._parts:
            best.view(-1)[self.found().point] = 1
        return functional.max_pool2d(best, 2 * _NEAR + 1, 1, _NEAR).view(-1) > 0
