"""Masks of everything in images: SAM asked about a grid of points, many images at once."""

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

from stages.propose.generator.candidates import (
    Answers,
    Candidates,
    Thresholds,
    boxes_of,
    without_duplicates,
)
from stages.propose.generator.crops import Crop, crops
from stages.propose.generator.mask_decoder import ImageSide, SharedMaskDecoder
from stages.propose.generator.run_lengths import area, compress, decode, run_lengths
from stages.propose.generator.searches import ExactSearch, FastSearch
from stages.propose.generator.small_regions import mend

Pixels = npt.NDArray[np.uint8]
Mode = Literal["exact", "fast"]

_SEARCHES: dict[Mode, type[ExactSearch]] = {"exact": ExactSearch, "fast": FastSearch}
_CACHE_BYTES = 2**24  # on a CPU; more prompts at a time only wait for memory


@dataclass(frozen=True)
class Proposal:
    """A mask that SAM proposes.

    Attributes:
        rle: COCO's compressed run lengths, column by column.
        area: Its pixels.
        bbox: Left, top, and the distances to the right and the bottom pixel.
        predicted_iou: What SAM thinks of it, about 0 to 1.
        stability_score: IoU of its logits cut low and cut high, 0 to 1.
    """

    rle: str
    area: int
    bbox: tuple[int, ...]
    predicted_iou: float
    stability_score: float


class MaskGenerator:
    """Proposes masks.

    Args:
        sam: In eval mode, on the device to use.
        mode: exact gives what `SamAutomaticMaskGenerator` gives; fast nearly that (`FastSearch`).
        points_per_batch: Points a forward of the decoder, of any number of images.
        images_per_batch: Images, or crops of them, a forward of the encoder.
        min_mask_region_area: Holes and islands of fewer pixels are mended; 0 leaves masks alone.

    The other arguments are those of `SamAutomaticMaskGenerator` (methods.md section 10).
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
        """The masks of images, (H, W, 3) uint8 RGB of any sizes; none is a possible answer.

        A strip so thin that of a crop not a row of pixels would reach the network has none.
        """
        plans = [self._crops(pixels.shape[0], pixels.shape[1]) for pixels in images]
        queue = [
            (pixels, crop) for pixels, plan in zip(images, plans, strict=True) for crop in plan
        ]
        starts = range(0, len(queue), self._images_per_batch)
        with torch.inference_mode():
            batches = (queue[start : start + self._images_per_batch] for start in starts)
            found = chain.from_iterable(self._search(batch) for batch in batches)
            return [self._finished(plan, list(islice(found, len(plan)))) for plan in plans]

    def _crops(self, height: int, width: int) -> list[Crop]:
        found = list(self._crops_of((height, width)))
        return found if all(min(crop.input_px) > 0 for crop in found) else []

    def _search(self, queue: Sequence[tuple[Pixels, Crop]]) -> list[Candidates]:
        """The masks of each of some crops."""
        sam, device = self._sam, self._sam.device
        scaled = [torch.from_numpy(crop.inputs(pixels)).to(device) for pixels, crop in queue]
        inputs = torch.stack([sam.preprocess(pixels.permute(2, 0, 1)) for pixels in scaled])
        sides = self._decoder.image_sides(sam.image_encoder(inputs))
        height, width = self._decoder.embedding_px
        kind = _SEARCHES[self._mode]
        searches = [kind(crop, (4 * height, 4 * width), self._limits, device) for _, crop in queue]
        while sum(map(len, asked := [search.ask() for search in searches])):
            for batch in _batches([len(points) for points in asked], self._points_per_batch):
                self._decode([(searches[i], sides[i], asked[i][some]) for i, some in batch])
        return [search.found() for search in searches]

    def _decode(self, asked: Sequence[tuple[ExactSearch, ImageSide, Tensor]]) -> None:
        """Asks about points of each search, in one forward, and tells the answers."""
        counts = [len(points) for _, _, points in asked]
        places = torch.cat([search.points[points] for search, _, points in asked])
        decoded = self._decoder.decode(places, [side for _, side, _ in asked], counts)
        wanted = decoded.ious > self._limits.predicted_iou
        if self._limits.predicted_iou == 0:
            wanted[:] = True
        logits, ious = self._decoder.draw(decoded, wanted), decoded.ious[wanted]
        points = torch.cat([points for _, _, points in asked])[wanted.nonzero()[:, 0]]
        sizes = [int(own.sum()) for own in torch.split(wanted, counts)]
        answers = (torch.split(field, sizes) for field in (logits, ious, points))
        for (search, _, _), *own in zip(asked, *answers, strict=True):
            search.tell(Answers(*own))

    def _finished(self, plan: list[Crop], parts: list[Candidates]) -> list[Proposal]:
        """The masks of an image, of those of its crops."""
        if not plan:
            return []
        found = Candidates.joined(parts)
        if len(plan) > 1:  # masks of smaller crops are finer
            areas = [crop.size_px[0] * crop.size_px[1] for crop in plan]
            scores = [1 / area for area, part in zip(areas, parts, strict=True) for _ in part.runs]
            preference = torch.tensor(scores, device=found.boxes.device)
            found = without_duplicates(found, preference, self._crop_nms_thresh)
        height, width = plan[0].image_px
        if self._min_mask_region_area > 0 and found.runs:
            found = self._mended(found, height, width)
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

    def _mended(self, found: Candidates, height: int, width: int) -> Candidates:
        """Without small holes and islands, nor what has become a duplicate by that."""
        pairs = [
            mend(decode(runs, height, width), self._min_mask_region_area) for runs in found.runs
        ]
        masks = torch.from_numpy(np.stack([mask for mask, _ in pairs]))
        device = found.boxes.device
        mended = replace(found, runs=run_lengths(masks), boxes=boxes_of(masks).to(device))
        preference = torch.tensor([float(not edited) for _, edited in pairs], device=device)
        limit = max(self._limits.nms, self._crop_nms_thresh)
        return without_duplicates(mended, preference, limit)


def _batches(counts: Sequence[int], limit: int) -> Iterator[list[tuple[int, slice]]]:
    """Cuts counted items of several owners, one after the other, into batches.

    Yields:
        Batches of at most `limit` items: who owns some of them, and which of the owner's they are.
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
