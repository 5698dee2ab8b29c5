"""Our data path against the published loader's, on the same crops and one core."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from PIL import Image
from torch import Generator, Tensor
from torch.utils.data import default_collate

from benchmarks.cost import Cost, now
from benchmarks.published_loader import Place, PublishedLoader, random_place
from benchmarks.train_images import Roles
from stages.train.data.batch import SECOND_DRAW, TrainBatch
from stages.train.data.crops import Crops, TrainImage
from stages.train.data.random_numbers import StepRandom, generator
from stages.train.step.strong_views import boxes

_CPU = torch.device("cpu")
_Item = tuple[str, TrainImage, Place, list[list[float]]]
"""Role, image, crop, and the numbers of each strong view's colours."""


def measured(
    crops: Crops, roles: Roles, steps: int, repeats: int
) -> tuple[dict[str, dict[str, float]], float]:
    """Reads the batches of these steps with each loader.

    Args:
        crops: Our loader.
        roles: The images with a label file each, for the published one.
        steps: Number of batches.
        repeats: Times to read all; the least counts.

    Returns:
        Samples a second by loader, by the clock and of CPU time, with their ratios to the published
        one's; and the mean difference of our weak views from its, normalized.
    """
    items = [_items(crops, roles, step) for step in range(steps)]

    def published(*, decodes_each_view: bool) -> Callable[[], list[Tensor]]:
        loader = PublishedLoader(
            crops.config.crop_px, decodes_each_view, Generator().manual_seed(0)
        )
        return lambda: [_published_batch(loader, own) for own in items]

    def ours() -> list[Tensor]:
        return [_viewed(batch) for batch in crops.batches(range(steps), _CPU)]

    def uncoloured() -> list[Tensor]:
        return [batch.labeled.pixels for batch in crops.batches(range(steps), _CPU)]

    ways: dict[str, Callable[[], list[Tensor]]] = {
        "published": published(decodes_each_view=False),
        "published, each view decoded again": published(decodes_each_view=True),
        "ours": ours,
        "ours, colours left to the device": uncoloured,
    }
    costs = dict.fromkeys(ways, Cost(float("inf"), float("inf")))
    with _one_core():
        difference = _difference(ways["published"](), ours())  # libraries set themselves up
        for _ in range(repeats):
            for name, work in ways.items():
                start = now(_CPU)
                work()
                found = now(_CPU) - start
                least = Cost(min(found.wall, costs[name].wall), min(found.cpu, costs[name].cpu))
                costs[name] = least
    samples = sum(map(len, items))
    published_cost = costs["published"]
    figures = {
        name: {
            "samples_per_second": samples / own.wall,
            "samples_per_cpu_second": samples / own.cpu,
            "ratio": published_cost.wall / own.wall,
            "cpu_ratio": published_cost.cpu / own.cpu,
        }
        for name, own in costs.items()
    }
    return figures, difference


def _items(crops: Crops, roles: Roles, step: int) -> list[_Item]:
    """The crops of a step as our loader draws them, for the published one to make."""
    draws = StepRandom(crops.seed, step, range(crops.config.batch_size), crops.config.batch_size)
    items = []
    for key in ("labeled", *crops.others, SECOND_DRAW):
        own = {
            image.uri: image
            for image in roles[next(iter(crops.others)) if key == SECOND_DRAW else key]
        }
        colours = [
            draws.of_images(
                f"colours of {key} {number}", lambda drawn: torch.rand(8, generator=drawn)
            )
            for number in (0, 1)
        ]
        for row, (position, image) in enumerate(crops.chosen(key, step).items()):
            with Image.open(image.uri) as file:
                size = file.size
            same = generator(crops.seed, f"crop of {key}", position)
            where = random_place(size, crops.config.crop_px, crops.config.scale, same)
            numbers = [each[row].tolist() for each in colours]
            items.append((key, own[image.uri], where, numbers))
    return items


def _published_batch(loader: PublishedLoader, items: list[_Item]) -> Tensor:
    """Makes all tensors of a step; returns the weak views of the role drawn twice."""
    found: dict[str, list[list[Tensor]]] = {}
    for key, image, where, colours in items:
        one = (
            loader.labeled(image, where)
            if key == "labeled"
            else loader.others(image, where, colours)
        )
        found.setdefault(key, []).append(one)
    weak: Tensor = {key: default_collate(own) for key, own in found.items()}[SECOND_DRAW][0]
    return weak


def _viewed(batch: TrainBatch) -> Tensor:
    """Makes all views of a batch, on the device it is on, and the boxes of each role."""
    assert batch.labeled.images.shape == batch.labeled.pixels.shape
    for key, crops in batch.crops.items():
        assert crops.weak.shape == batch.strong(key, 0).shape == batch.strong(key, 1).shape
    for role in batch.roles:
        boxes(batch, role, 0), boxes(batch, role, 1)
    return batch.crops[SECOND_DRAW].weak


def _difference(published: list[Tensor], own: list[Tensor]) -> float:
    """Mean distance of normalized pixels, over the standard deviation of ImageNet's."""
    return (
        torch.stack([(a - b).abs().mean() for a, b in zip(published, own, strict=True)])
        .mean()
        .item()
    )


@contextmanager
def _one_core() -> Iterator[None]:
    """Keeps this process on one core, where the system knows how."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    if cores:
        os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        if cores:
            os.sched_setaffinity(0, cores)
