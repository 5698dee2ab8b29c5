"""The mean and standard deviation that images are normalized by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

if TYPE_CHECKING:
    from torch import Tensor

Mean = Annotated[float, Field(ge=0, le=1, strict=True)]
Deviation = Annotated[float, Field(gt=0, le=1, strict=True)]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Normalization:
    """The statistics that a network expects its images to be normalized by.

    Attributes:
        mean: Of the red, green and blue channel of images in [0, 1].
        std: Standard deviation of the same channels.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 # the form that pydantic reads

    mean: tuple[Mean, Mean, Mean]
    std: tuple[Deviation, Deviation, Deviation]


IMAGENET = Normalization(IMAGENET_MEAN, IMAGENET_STD)
"""The statistics of ImageNet, which every network here takes; see `SegmentationNetwork`."""

OPENAI = Normalization((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
"""The statistics of OpenAI's CLIP."""


def normalize(images: Tensor, by: Normalization = IMAGENET) -> Tensor:
    """Images (..., 3, H, W) in [0, 1], minus the mean and divided by the standard deviation."""
    return normalize_(images.clone(), by)


def normalize_(images: Tensor, by: Normalization = IMAGENET) -> Tensor:
    """`normalize` in place."""
    mean, std = (images.new_tensor(values).view(3, 1, 1) for values in (by.mean, by.std))
    return images.sub_(mean).div_(std)


def renormalized(images: Tensor, by: Normalization, *, was: Normalization = IMAGENET) -> Tensor:
    """Images (..., 3, H, W) that were normalized by one mean and deviation, by another one."""
    if by == was:
        return images
    mean, std, own_mean, own_std = (
        images.new_tensor(values).view(3, 1, 1) for values in (was.mean, was.std, by.mean, by.std)
    )
    return (images * std + mean - own_mean) / own_std
