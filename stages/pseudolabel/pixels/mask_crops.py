"""Crops of an image around its masks."""

from torch import Tensor
from torch.nn import functional as F


def masked_crops(image: Tensor, masks: Tensor, size_px: int) -> Tensor:
    """Square crops around masks, blank outside the mask (OVSeg, arXiv 2210.04150, section 3.1).

    The side of the square is the longer side of the mask's bounding box, and both have the same
    centre. The part of the square outside the image is blank too.

    Args:
        image: (3, H, W) float, normalised, so that 0 is the mean colour.
        masks: (P, H, W) bool.
        size_px: Side of the crops.

    Returns:
        (P, 3, size_px, size_px) float; blank for an empty mask.
    """
    crops = image.new_zeros(len(masks), 3, size_px, size_px)
    for crop, mask in zip(crops, masks, strict=True):
        rows, columns = (mask.any(dim).nonzero()[:, 0] for dim in (1, 0))
        if not len(rows):
            continue
        y, x = slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
        shown = image[:, y, x] * mask[y, x]
        height, width = shown.shape[1:]
        rows_px, columns_px = max(width - height, 0), max(height - width, 0)
        left, top = columns_px // 2, rows_px // 2
        padding = (left, columns_px - left, top, rows_px - top)
        square = F.pad(shown, padding)[None]
        crop[:] = F.interpolate(square, (size_px, size_px), mode="bilinear", antialias=True)[0]
    return crops
