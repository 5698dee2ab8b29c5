"""What training costs beside its network: reading crops, and a step.

    python -m benchmarks.train
    python -m benchmarks.train --folder photos --encoder tu-resnet101s.gluon_in1k --device cuda

First the data path of the preset semiovs-prevmatch on one core against the published loader (see
`benchmarks/published_loader.py`), which decodes an image once an item, and against one that decodes
each of its three views anew. All make the same views of the same crops: labeled, unlabeled, a
second draw of these, OOD; a sample is one of them. Ours reads no label file of unlabeled images,
for it needs none, and OOD labels from the store; the published one reads files for both. Ours pays
for its random numbers and for comparing files with what ingest noted, the published one does not.

Then a step of that preset, from the batch to the moved weights, against the sum of its forwards and
backwards, one after the other on the same tensors.

CPU time is that of all threads; on a busy machine it is the fairer one.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import torch
import typer
import yaml
from PIL import Image
from torch import Generator, Tensor
from torch.utils.data import default_collate

from benchmarks import train_step
from benchmarks.cost import Cost, now
from benchmarks.published_loader import Place, PublishedLoader, random_place
from benchmarks.train_images import Roles, train_images, without_masks
from pipeline.console import Console
from pipeline.errors import MaskmillError
from pipeline.vocabulary import Vocabulary
from stages.device import pick_device
from stages.train.batch import MIX, TrainBatch
from stages.train.config import TrainConfig, VariantConfig
from stages.train.crops import Crops, TrainImage
from stages.train.draws import Draws, generator
from stages.train.mixture import boxes

_PRESET = "semiovs-prevmatch"
_VOCABULARY = Path("configs/vocabularies/voc.yaml")
_SANDBOX_PX = {"crop_px": 64, "stored": 128}
_PHOTO_PX = {"crop_px": 321, "stored": 512}
_CPU = torch.device("cpu")
_Item = tuple[str, TrainImage, Place, list[list[float]]]
"""Role, image, crop, and the numbers of each strong view's colours."""

console = Console()


def main(
    folder: Annotated[
        Path | None, typer.Option(help="Photos in `images`, label files in `masks`; else drawn.")
    ] = None,
    count: Annotated[int, typer.Option("--images", min=3, help="Images to read.")] = 48,
    encoder: Annotated[
        str | None, typer.Option(help="DeepLabV3+'s, random; else the sandbox's small U-Net.")
    ] = None,
    crop_px: Annotated[
        int | None, typer.Option(min=16, help="Side of the crops; default 321, of drawn images 64.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=2, help="Crops of each role a step.")] = 8,
    steps: Annotated[int, typer.Option(min=1, help="Steps to measure.")] = 4,
    repeats: Annotated[int, typer.Option(min=1, help="Times to read all; the least counts.")] = 3,
    precision: Annotated[
        Literal["float32", "bfloat16", "float16"] | None,
        typer.Option(help="Default: the preset's float16 on a GPU, else float32."),
    ] = None,
    device: Annotated[str, typer.Option(help="Of the steps: cpu, cuda, or auto.")] = "auto",
    output: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
) -> None:
    """Print samples a second and core, what a step costs, and both ratios."""
    sizes = _SANDBOX_PX if folder is None else _PHOTO_PX
    vocabulary = Vocabulary.model_validate(yaml.safe_load(_VOCABULARY.read_text()))
    with tempfile.TemporaryDirectory() as place:
        try:
            where = pick_device(device)
            variant = _variant(
                encoder,
                crop_px or sizes["crop_px"],
                batch_size,
                precision or ("float16" if where.type == "cuda" else "float32"),
            )
            (labeler,) = variant.labelers("ood")
            roles = train_images(Path(place), count, folder, sizes["stored"], labeler, vocabulary)
        except MaskmillError as error:
            console.error(str(error))
            raise typer.Exit(1) from error
        crops = _crops(variant, without_masks(roles), vocabulary)
        reading, difference = _reading(crops, roles, steps, repeats)
        feed = list(crops.batches(range(steps + train_step.WARM), where, variant.workers))
        step = train_step.measured(variant, vocabulary, feed, where)
    samples = steps * batch_size * (1 + len(variant.roles) + 1)
    data = _data_figures(reading, samples)
    costs = _step_figures(step)
    console.table(
        f"samples a second on one core, {variant.crop_px} px",
        ("", "by the clock", "of CPU time", "ratio", "CPU ratio"),
        [(name, *(f"{value:.3g}" for value in own.values())) for name, own in data.items()],
    )
    console.note(f"mean difference of our crops from the published loader's: {difference:.2%}")
    console.table(
        f"a step of {_PRESET} on {where.type}, {encoder or 'small U-Net'}, {variant.precision}",
        ("", "seconds", "CPU seconds", "ratio", "CPU ratio"),
        [(name, *(f"{value:.3g}" for value in own.values())) for name, own in costs.items()],
    )
    if output is not None:
        known = {
            "folder": None if folder is None else str(folder),
            "encoder": encoder,
            "crop_px": variant.crop_px,
            "batch_size": batch_size,
            "precision": variant.precision,
            "device": where.type,
        }
        figures = {"data": data, "difference": difference, "step": costs}
        output.write_text(json.dumps({**known, **figures}, indent=2) + "\n")


def _variant(encoder: str | None, crop_px: int, batch_size: int, precision: str) -> VariantConfig:
    """The preset with another size, and maybe another network."""
    model = {"name": "deeplabv3plus", "encoder": encoder, "encoder_weights": None}
    if encoder is None:
        model = {"name": "small_unet", "encoder": None, "encoder_weights": None}
        model.pop("encoder")
    keys = {"preset": _PRESET, "crop_px": crop_px, "batch_size": batch_size}
    values = {**keys, "precision": precision, "model": model}
    return TrainConfig.model_validate({"variants": {"measured": values}}).variants["measured"]


def _crops(variant: VariantConfig, roles: Roles, vocabulary: Vocabulary) -> Crops:
    return Crops(
        labeled=roles["labeled"],
        others={role: roles[role] for role in variant.roles},
        draws_twice=True,
        vocabulary=vocabulary,
        seed=0,
        batch_size=variant.batch_size,
        crop_px=variant.crop_px,
        scale=variant.scale,
    )


def _reading(crops: Crops, roles: Roles, steps: int, repeats: int) -> tuple[dict[str, Cost], float]:
    """What the batches of these steps cost each loader, and how far their weak views differ."""
    items = [_items(crops, roles, step) for step in range(steps)]

    def published(*, decodes_each_view: bool) -> Callable[[], list[Tensor]]:
        loader = PublishedLoader(crops.crop_px, decodes_each_view, Generator().manual_seed(0))
        return lambda: [_published_batch(loader, own) for own in items]

    def ours() -> list[Tensor]:
        return [_viewed(batch) for batch in crops.batches(range(steps), _CPU, 1)]

    def uncoloured() -> list[Tensor]:
        return [batch.labeled.pixels for batch in crops.batches(range(steps), _CPU, 1)]

    ways: dict[str, Callable[[], list[Tensor]]] = {
        "published": published(decodes_each_view=False),
        "published, each view decoded anew": published(decodes_each_view=True),
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
    return costs, difference


def _items(crops: Crops, roles: Roles, step: int) -> list[_Item]:
    """The crops of a step as our loader draws them, for the published one to make."""
    draws = Draws(crops.seed, step, range(crops.batch_size), crops.batch_size)
    items = []
    for key in ("labeled", *crops.others, MIX):
        own = {image.uri: image for image in roles[next(iter(crops.others)) if key == MIX else key]}
        colours = [
            draws.of_images(
                f"colours of {key} {number}", lambda drawn: torch.rand(8, generator=drawn)
            )
            for number in (0, 1)
        ]
        for row, (position, image) in enumerate(crops._chosen(key, step).items()):
            with Image.open(image.uri) as file:
                size = file.size
            same = generator(crops.seed, f"crop of {key}", position)
            where = random_place(size, crops.crop_px, crops.scale, same)
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
    weak: Tensor = {key: default_collate(own) for key, own in found.items()}[MIX][0]
    return weak


def _viewed(batch: TrainBatch) -> Tensor:
    """Makes all views of a batch, on the device it is on, and the boxes of each role."""
    assert batch.labeled.images.shape == batch.labeled.pixels.shape
    for key, crops in batch.crops.items():
        assert crops.weak.shape == batch.strong(key, 0).shape == batch.strong(key, 1).shape
    for role in batch.roles:
        boxes(batch, role, 0), boxes(batch, role, 1)
    return batch.crops[MIX].weak


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


def _data_figures(costs: dict[str, Cost], samples: int) -> dict[str, dict[str, float]]:
    published = costs["published"]
    return {
        name: {
            "samples_per_second": samples / own.wall,
            "samples_per_cpu_second": samples / own.cpu,
            "ratio": published.wall / own.wall,
            "cpu_ratio": published.cpu / own.cpu,
        }
        for name, own in costs.items()
    }


def _step_figures(costs: dict[str, Cost]) -> dict[str, dict[str, float]]:
    passes = costs["asked"] + costs["trained"]
    rows = {
        "forwards without gradient": costs["asked"],
        "forwards and backwards": costs["trained"],
        "all of them": passes,
        "step": costs["step"],
    }
    return {
        name: {
            "seconds": own.wall,
            "cpu_seconds": own.cpu,
            "ratio": own.wall / passes.wall,
            "cpu_ratio": own.cpu / passes.cpu,
        }
        for name, own in rows.items()
    }


if __name__ == "__main__":
    typer.run(main)
