"""The normalization every network here expects."""

from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalize(images: Tensor) -> Tensor:
    """Images (..., 3, H, W) in [0, 1], shifted and scaled by the mean and deviation of ImageNet."""
    mean, std = (images.new_tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (images - mean) / std


def pixels_of(images: Tensor) -> Tensor:
    """The images (N, H, W, 3) uint8 RGB that `normalize` made (N, 3, H, W) of, to show them."""
    mean, std = (images.new_tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return ((images * std + mean) * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1)
