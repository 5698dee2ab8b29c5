"""The normalization every network here expects."""

from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalize(images: Tensor) -> Tensor:
    """Images (..., 3, H, W) in [0, 1], shifted and scaled by the mean and deviation of ImageNet."""
    return normalize_(images.clone())


def normalize_(images: Tensor) -> Tensor:
    """The same in place."""
    mean, std = (images.new_tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return images.sub_(mean).div_(std)
