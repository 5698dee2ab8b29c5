"""Masks of everything in images: SAM prompted with a grid of points, many images at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from segment_anything.modeling import Sam
from torch import Tensor

from stages.models.finite import finite_scores
from stages.propose.generator.candidates import (
    Candidates,
    PointMasks,
    Thresholds,
    boxes_of,
    suppress_overlaps,
)
from stages.propose.generator.crops import Crop, crops
from stages.propose.generator.mask_decoder import ImageProjections, SharedMaskDecoder
from stages.propose.generator.run_lengths import area, compress, decode, run_lengths
from stages.propose.generator.searches import ExactSearch, FastSearch
from stages.propose.generator.small_regions import remove_small_regions

Pixels = npt.NDArray[np.uint8]
Mode = Literal["exact", "fast"]

_SEARCHES: dict[Mode, type[ExactSearch]] = {"exact": ExactSearch, "fast": FastSearch}
_CACHE_BYTES = 2**24  # of a CPU; larger batches of prompts are slower, as they leave the cache


@dataclass(frozen=True)
class Proposal:
    """A mask that SAM proposes.

    Attributes:
        rle: COCO's compressed run lengths, column by column.
        area: Number of pixels.
        bbox: Left, top, and the distances to the right and the bottom pixel.
        predicted_iou: IoU with the true mask as SAM predicts it, about 0 to 1.
        stability_score: IoU of the masks at a higher and a lower threshold of the logits, 0 to 1.
    """

    rle: str
    area: int
    bbox: tuple[int, ...]
    predicted_iou: float
    stability_score: float


class MaskGenerator:
    """Proposes masks with SAM (Kirillov et al. 2023, arXiv 2304.02643, appendix B).

    Args:
        sam: The model in eval mode, on the device to use.
        mode: `exact` gives the masks of `SamAutomaticMaskGenerator`, `fast` nearly the same ones
            (`FastSearch`).
        points_per_batch: Points in a forward pass of the decoder, of any number of images.
        images_per_batch: Images, or crops of them, in a forward pass of the encoder.
        min_mask_region_area: Holes and islands with fewer pixels are removed; 0 turns this off.

    The other arguments are those of `SamAutomaticMaskGenerator`.
    """

    def __init__(
        self,
        sam: Sam,
        *,
        mode: Mode = "exact",
        points_per_side: int = 32,
        points_per_batch: int = 64,
        images_per_batch: int = 1,
        pred_iou_thresh: float = 0.88,
        stability_score_thresh: float = 0.95,
        stability_score_offset: float = 1.0,
        box_nms_thresh: float = 0.7,
        crop_n_layers: int = 0,
        crop_nms_thresh: float = 0.7,
        crop_overlap_ratio: float = 512 / 1500,
        crop_n_points_downscale_factor: int = 1,
        min_mask_region_area: int = 0,
    ) -> None:
        self._sam, self._mode = sam, mode
        self._decoder = SharedMaskDecoder(sam)
        self._limits = Thresholds(
            sam.mask_threshold,
            pred_iou_thresh,
            stability_score_thresh,
            stability_score_offset,
            box_nms_thresh,
        )
        self._images_per_batch = images_per_batch
        self._points_per_batch = points_per_batch
        if sam.device.type == "cpu":
            fit = max(1, _CACHE_BYTES // self._decoder.prompt_bytes())
            self._points_per_batch = min(points_per_batch, fit)
        self._crops_of = partial(
            crops,
            encoder_px=sam.image_encoder.img_size,
            points_per_side=points_per_side,
            layers=crop_n_layers,
            overlap_ratio=crop_overlap_ratio,
            points_downscale_factor=crop_n_points_downscale_factor,
        )
        self._crop_nms_thresh = crop_nms_thresh
        self._min_mask_region_area = min_mask_region_area

    def __call__(self, images: Sequence[Pixels]) -> list[list[Proposal]]:
        """Proposes masks in images, (H, W, 3) uint8 RGB of any sizes.

        Returns:
            The masks of each image. There may be none, and there are none if a crop is so thin that
            it has no row or column of pixels in the network's input.

        Raises:
            NotFiniteError: A logit or predicted IoU is NaN or infinite.
        """
        plans = [self._crops(pixels.shape[0], pixels.shape[1]) for pixels in images]
        queue = [
            (pixels, crop) for pixels, plan in zip(images, plans, strict=True) for crop in plan
        ]
        starts = range(0, len(queue), self._images_per_batch)
        with torch.inference_mode():
            batches = (queue[start : start + self._images_per_batch] for start in starts)
            found = chain.from_iterable(self._search(batch) for batch in batches)
            return [self._proposals(plan, list(islice(found, len(plan)))) for plan in plans]

    def _crops(self, height: int, width: int) -> list[Crop]:
        found = list(self._crops_of((height, width)))
        return found if all(min(crop.input_px) > 0 for crop in found) else []

    def _search(self, queue: Sequence[tuple[Pixels, Crop]]) -> list[Candidates]:
        """The masks of each of these crops."""
        sam, device = self._sam, self._sam.device
        scaled = [torch.from_numpy(crop.inputs(pixels)).to(device) for pixels, crop in queue]
        inputs = torch.stack([sam.preprocess(pixels.permute(2, 0, 1)) for pixels in scaled])
        projections = self._decoder.project_images(sam.image_encoder(inputs))
        height, width = self._decoder.embedding_px
        kind = _SEARCHES[self._mode]
        searches = [kind(crop, (4 * height, 4 * width), self._limits, device) for _, crop in queue]
        while sum(map(len, points := [search.next_points() for search in searches])):
            for batch in _batches([len(own) for own in points], self._points_per_batch):
                self._decode([(searches[i], projections[i], points[i][own]) for i, own in batch])
        return [search.result() for search in searches]

    def _decode(self, prompts: Sequence[tuple[ExactSearch, ImageProjections, Tensor]]) -> None:
        """Decodes points of each search in one forward pass, and adds the masks to the searches."""
        counts = [len(points) for _, _, points in prompts]
        positions = torch.cat([search.points[points] for search, _, points in prompts])
        decoded = self._decoder.decode(positions, [image for _, image, _ in prompts], counts)
        finite_scores(decoded.ious)
        wanted = decoded.ious > self._limits.predicted_iou
        if self._limits.predicted_iou == 0:
            wanted[:] = True
        logits = finite_scores(self._decoder.mask_logits(decoded, wanted))
        ious = decoded.ious[wanted]
        points = torch.cat([points for _, _, points in prompts])[wanted.nonzero()[:, 0]]
        sizes = [int(own.sum()) for own in torch.split(wanted, counts)]
        masks = (torch.split(field, sizes) for field in (logits, ious, points))
        for (search, _, _), *own in zip(prompts, *masks, strict=True):
            search.add(PointMasks(*own))

    def _proposals(self, plan: list[Crop], parts: list[Candidates]) -> list[Proposal]:
        """Merges the masks of an image's crops."""
        if not plan:
            return []
        found = Candidates.concatenated(parts)
        if len(plan) > 1:  # masks of smaller crops are preferred, as they have more detail
            areas = [crop.size_px[0] * crop.size_px[1] for crop in plan]
            scores = [1 / area for area, part in zip(areas, parts, strict=True) for _ in part.runs]
            preference = torch.tensor(scores, device=found.boxes.device)
            found = suppress_overlaps(found, preference, self._crop_nms_thresh)
        height, width = plan[0].image_px
        if self._min_mask_region_area > 0 and found.runs:
            found = self._without_small_regions(found, height, width)
        return [
            Proposal(compress(runs, height, width), area(runs), bbox, iou, stability)
            for runs, bbox, iou, stability in zip(
                found.runs,
                [
                    (left, top, right - left, bottom - top)
                    for left, top, right, bottom in found.boxes.tolist()
                ],
                found.predicted_iou.tolist(),
                found.stability_score.tolist(),
                strict=True,
            )
        ]

    def _without_small_regions(self, found: Candidates, height: int, width: int) -> Candidates:
        """Removes small holes and islands, and masks that have become duplicates by that."""
        pairs = [
            remove_small_regions(decode(runs, height, width), self._min_mask_region_area)
            for runs in found.runs
        ]
        masks = torch.from_numpy(np.stack([mask for mask, _ in pairs]))
        device = found.boxes.device
        cleaned = replace(found, runs=run_lengths(masks), boxes=boxes_of(masks).to(device))
        preference = torch.tensor([float(not changed) for _, changed in pairs], device=device)
        limit = max(self._limits.nms, self._crop_nms_thresh)
        return suppress_overlaps(cleaned, preference, limit)


def _batches(counts: Sequence[int], limit: int) -> Iterator[list[tuple[int, slice]]]:
    """Cuts counted items of several owners into batches, in order.

    Args:
        counts: Number of items of each owner.
        limit: Most items a batch.

    Yields:
        Batches: for each owner with items in it, the owner's index and a slice of its items.
    """
    batch: list[tuple[int, slice]] = []
    room = limit
    for owner, count in enumerate(counts):
        start = 0
        while start < count:
            stop = min(count, start + room)
            batch.append((owner, slice(start, stop)))
            room -= stop - start
            start = stop
            if not room:
                yield batch
                batch, room = [], limit
    if batch:
        yield batch
