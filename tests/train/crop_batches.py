"""Draws batches of crops and compares them."""

from dataclasses import replace

import torch
from torch import Tensor

from stages.models.segmenters.normalization import IMAGENET_MEAN, IMAGENET_STD
from stages.train.data.batch import TrainBatch
from stages.train.data.crops import Crops

CPU = torch.device("cpu")


def batches(crops: Crops, steps: range, workers: int = 1) -> list[TrainBatch]:
    crops = replace(crops, config=crops.config.model_copy(update={"workers": workers}))
    return list(crops.batches(steps, CPU))


def colors_of(images: Tensor) -> Tensor:
    """(B, S, S, 3) from 0 to 255, as they were before normalization."""
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (IMAGENET_MEAN, IMAGENET_STD))
    return ((images * std + mean) * 255).round().movedim(1, -1)


def reds(drawn_batches: list[TrainBatch], key: str = "unlabeled") -> list[int]:
    images = torch.cat([batch.crops[key].weak for batch in drawn_batches])
    return colors_of(images)[..., 0].amax((1, 2)).int().tolist()


def tensors_of(batch: TrainBatch) -> list[Tensor]:
    found = [batch.labeled.images, batch.labeled.mask]
    for key, part in batch.crops.items():
        found += [part.weak, batch.strong(key, 0), batch.strong(key, 1), part.valid]
        for labels in part.stored.values():
            found += [labels.mask, labels.confidence]
    return found


def assert_same(first: list[TrainBatch], second: list[TrainBatch]) -> None:
    for one, other in zip(first, second, strict=True):
        assert one.crops.keys() == other.crops.keys()
        assert all(map(torch.equal, tensors_of(one), tensors_of(other)))
