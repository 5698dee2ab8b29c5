"""The cost of training without its network: reading crops, and a step.

    python -m benchmarks.train
    python -m benchmarks.train --folder photos --encoder tu-resnet101s.gluon_in1k --device cuda

First the data path of the preset semiovs-prevmatch on one core against the published loader (see
`benchmarks/published_loader.py`), which decodes an image once an item, and against one that decodes
each of its three views again. All make the same views of the same crops: labeled, unlabeled, a
second draw of these, OOD; a sample is one of them. Our loader reads no label files of unlabeled
images, and OOD labels from the store; the published one reads files for both. Only our times
include random numbers and the comparison of files with their recorded checksums.

Then a step of that preset, from the batch to the updated weights, against the sum of its forward
and backward passes, one after the other on the same tensors.

CPU time includes all threads; on a busy machine it is the better measure.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Annotated, Literal

import typer
import yaml

from benchmarks import train_data, train_step
from benchmarks.cost import Cost
from benchmarks.train_images import Roles, train_images, without_masks
from pipeline.config.vocabulary import Vocabulary
from pipeline.console import Console
from pipeline.errors import MaskmillError
from stages.models.device import pick_device
from stages.train.config import TrainConfig, VariantConfig
from stages.train.data.crops import Crops

_PRESET = "semiovs-prevmatch"
_VOCABULARY = Path("configs/vocabularies/voc.yaml")
_SANDBOX_PX = {"crop_px": 64, "stored": 128}
_PHOTO_PX = {"crop_px": 321, "stored": 512}
Figures = dict[str, dict[str, float]]
"""Rows of a table."""

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
    only: Annotated[Literal["data", "step"] | None, typer.Option(help="Measure only this.")] = None,
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
        figures: dict[str, Figures] = {}
        known: dict[str, object] = {
            "folder": None if folder is None else str(folder),
            "encoder": encoder,
            "crop_px": variant.crop_px,
            "batch_size": batch_size,
            "precision": variant.precision,
            "device": where.type,
        }
        if only != "step":
            figures["data"], difference = train_data.measured(crops, roles, steps, repeats)
            header = ("", "by the clock", "of CPU time", "ratio", "CPU ratio")
            _table(f"samples a second, one core, {variant.crop_px} px", header, figures["data"])
            console.note(f"our crops differ from the published loader's by {difference:.4f}")
            known["difference"] = difference
        if only != "data":
            feed = list(crops.batches(range(steps + train_step.WARM), where))
            figures["step"] = _step(train_step.measured(variant, vocabulary, feed, where))
            title = f"a step of {_PRESET} on {where.type}, {encoder or 'small U-Net'}"
            header = ("", "seconds", "CPU seconds", "ratio", "CPU ratio")
            _table(f"{title}, {variant.crop_px} px, {variant.precision}", header, figures["step"])
    if output is not None:
        output.write_text(json.dumps({**known, "figures": figures}, indent=2) + "\n")


def _table(title: str, header: tuple[str, ...], figures: Figures) -> None:
    rows = [(name, *(f"{value:.3g}" for value in own.values())) for name, own in figures.items()]
    console.table(title, header, rows)


def _variant(encoder: str | None, crop_px: int, batch_size: int, precision: str) -> VariantConfig:
    """The preset with another size, and maybe another network."""
    deeplab = {"name": "deeplabv3plus", "encoder": encoder, "encoder_weights": None}
    small = {"name": "small_unet", "encoder_weights": None}
    model = small if encoder is None else deeplab
    keys = {"preset": _PRESET, "crop_px": crop_px, "batch_size": batch_size}
    values = {**keys, "precision": precision, "model": model, "workers": 1}
    return TrainConfig.model_validate({"variants": {"measured": values}}).variants["measured"]


def _crops(variant: VariantConfig, roles: Roles, vocabulary: Vocabulary) -> Crops:
    return Crops(
        labeled=roles["labeled"],
        others={role: roles[role] for role in variant.roles},
        config=variant,
        vocabulary=vocabulary,
        seed=0,
    )


def _step(costs: dict[str, Cost]) -> Figures:
    """Each over the sum of all passes."""
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
