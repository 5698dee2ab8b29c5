"""Masks of everything in an image: segment_anything's generator over a grid of points."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from segment_anything import SamAutomaticMaskGenerator
from segment_anything.modeling import Sam
from segment_anything.utils.amg import MaskData, generate_crop_boxes

from pipeline.errors import ConfigError


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
        options: Of `SamAutomaticMaskGenerator`, by its names (methods.md section 10).

    Raises:
        ConfigError: The options need OpenCV, which is not installed.
    """

    def __init__(self, sam: Sam, **options: Any) -> None:
        try:
            self._generator = _Generator(sam, output_mode="coco_rle", **options)
        except ImportError as error:
            where = f"propose.min_mask_region_area: {options['min_mask_region_area']}"
            fix = "run `pip install opencv-python-headless`, or set it to 0"
            raise ConfigError("OpenCV is not installed", where=where, fix=fix) from error

    def __call__(self, pixels: npt.NDArray[np.uint8]) -> list[Proposal]:
        """The masks of one image, (H, W, 3) uint8 RGB; none is a possible answer.

        A strip so thin that of a crop not a row of pixels would reach the network has none.
        """
        if not self._generator.can_crop(pixels.shape[0], pixels.shape[1]):
            return []
        with torch.inference_mode():
            found = self._generator.generate(pixels)
        return [
            Proposal(
                rle=mask["segmentation"]["counts"],
                area=int(mask["area"]),
                bbox=tuple(int(value) for value in mask["bbox"]),
                predicted_iou=float(mask["predicted_iou"]),
                stability_score=float(mask["stability_score"]),
            )
            for mask in found
        ]


class _Generator(SamAutomaticMaskGenerator):  # type: ignore[misc]  # it has no types
    """The official generator, which stumbles over crops of no pixel and over crops of no mask."""

    def can_crop(self, height: int, width: int) -> bool:
        """Whether every crop of such an image has a row of pixels at the network's scale."""
        boxes, _ = generate_crop_boxes((height, width), self.crop_n_layers, self.crop_overlap_ratio)
        resize = self.predictor.transform
        return all(
            right > left
            and bottom > top
            and min(resize.get_preprocess_shape(bottom - top, right - left, resize.target_length))
            for left, top, right, bottom in boxes
        )

    def _process_crop(self, *args: Any) -> MaskData:
        data = super()._process_crop(*args)
        data["crop_boxes"] = data["crop_boxes"].reshape(-1, 4)
        return data
