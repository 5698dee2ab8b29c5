"""What each mask of an image shows, as an image of its own."""

from torch import Tensor
from torch.nn import functional as F


def masked_crops(image: Tensor, masks: Tensor, size_px: int) -> Tensor:
    """The square around each mask with all else in it blanked (OVSeg, arXiv 2210.04150, 3.1).

    The square is as long as the longer side of the mask's box and centred on it; what of it lies
    outside the image is blank too.

    Args:
        image: (3, H, W) float, normalised, so that 0 is the mean colour.
        masks: (P, H, W) bool.
        size_px: Side of the crops.

    Returns:
        (P, 3, size_px, size_px) float; all blank for a mask without a pixel.
    """
    crops = image.new_zeros(len(masks), 3, size_px, size_px)
    for crop, mask in zip(crops, masks, strict=True):
        rows, columns = (mask.any(dim).nonzero()[:, 0] for dim in (1, 0))
        if not len(rows):
            continue
        y, x = slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
        shown = image[:, y, x] * mask[y, x]
        height, width = shown.shape[1:]
        below, beside = max(width - height, 0), max(height - width, 0)
        padding = (beside // 2, beside - beside // 2, below // 2, below - below // 2)
        square = F.pad(shown, padding)[None]
        crop[:] = F.interpolate(square, (size_px, size_px), mode="bilinear", antialias=True)[0]
    return crops
