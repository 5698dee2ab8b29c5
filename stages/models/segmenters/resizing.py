"""Sizes that networks of patches can take."""

import torch
from torch import Tensor
from torch.nn.functional import interpolate


def nearest_multiples(size: tuple[int, int], patch_px: int) -> tuple[int, int]:
    """The multiples of a patch that are nearest to a height and width, a half up; one at least."""
    height, width = (max(1, int(length / patch_px + 0.5)) * patch_px for length in size)
    return height, width


def fitted(images: Tensor, patch_px: int) -> Tensor:
    """Images of any size (N, 3, H, W), resized to the nearest multiples of a patch.

    Bilinear with aligned corners, as UniMatch V2 does before it evaluates (arXiv 2410.10777, its
    code).
    """
    height, width = images.shape[-2:]
    size = nearest_multiples((height, width), patch_px)
    return resized(images, size, align_corners=True)


def resized(maps: Tensor, size: tuple[int, int], *, align_corners: bool) -> Tensor:
    """Maps (N, F, h, w) at another height and width, bilinear; as they are where it is theirs."""
    if maps.shape[-2:] == torch.Size(size):
        return maps
    return interpolate(maps, size, mode="bilinear", align_corners=align_corners)
