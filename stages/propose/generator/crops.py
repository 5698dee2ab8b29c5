"""Crops of images, and the grid of points on each that prompt SAM."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from segment_anything.utils.amg import build_point_grid, generate_crop_boxes
from segment_anything.utils.transforms import ResizeLongestSide


@dataclass(frozen=True)
class Crop:
    """A crop of an image; the first one is the whole image.

    Attributes:
        box: Left, top, right, bottom in the image; right and bottom are exclusive.
        image_px: Height and width of the image.
        encoder_px: Side of the encoder's square input.
        input_px: Height and width of the crop in the encoder's input; the rest is padding.
        points_per_side: Points along each side of the grid.
    """

    box: tuple[int, int, int, int]
    image_px: tuple[int, int]
    encoder_px: int
    input_px: tuple[int, int]
    points_per_side: int

    @property
    def size_px(self) -> tuple[int, int]:
        """Height and width of the crop."""
        left, top, right, bottom = self.box
        return bottom - top, right - left

    def points(self) -> npt.NDArray[np.float64]:
        """(P, 2) x and y of the points in the encoder's input, row by row."""
        height, width = self.size_px
        grid = build_point_grid(self.points_per_side) * (width, height)
        scaled: npt.NDArray[np.float64] = grid * (
            self.input_px[1] / width,
            self.input_px[0] / height,
        )
        return scaled

    def inputs(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Cuts the crop out of its image (H, W, 3) and scales it to `input_px`, without padding."""
        left, top, right, bottom = self.box
        resize = ResizeLongestSide(self.encoder_px)
        scaled: npt.NDArray[np.uint8] = resize.apply_image(pixels[top:bottom, left:right])
        return scaled


def crops(
    image_px: tuple[int, int],
    *,
    encoder_px: int,
    points_per_side: int,
    layers: int,
    overlap_ratio: float,
    points_downscale_factor: int,
) -> Iterator[Crop]:
    """Yields the crops of an image, the whole image first.

    Args:
        image_px: Height and width of the image.
        encoder_px: Long side that crops are scaled to.
        points_per_side: Points along each side of the whole image.
        layers: Further layers of crops; layer i = 1, 2, ... has 4^i crops.
        overlap_ratio: Overlap of crops of the first layer, as a share of the short side.
        points_downscale_factor: Layer i has points_per_side / factor^i points a side.
    """
    for box, layer in zip(*generate_crop_boxes(image_px, layers, overlap_ratio), strict=True):
        left, top, right, bottom = box
        size_px = bottom - top, right - left
        input_px = (0, 0)
        if min(size_px) > 0:
            input_px = ResizeLongestSide.get_preprocess_shape(*size_px, encoder_px)
        side = int(points_per_side / points_downscale_factor**layer)
        yield Crop((left, top, right, bottom), image_px, encoder_px, input_px, side)
