"""Speed of mask proposals, and their agreement with `SamAutomaticMaskGenerator`.

    python -m benchmarks.propose --model sandbox --images 20 --points-per-side 32
    python -m benchmarks.propose --model vit_b --weights sam_vit_b_01ec64.pth --folder photos

One run compares segment_anything's generator with both modes of `stages/propose`, on the same
weights and images. Without a checkpoint a published model gets random weights, with which all masks
pass the predicted IoU and none is stable. That times the encoder, the decoder and all scaling of
masks, the least gain of our modes. It says nothing about agreement, and in `fast` no point is ever
covered. Agreement needs the sandbox's SAM or a checkpoint.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import typer
from pycocotools import mask as coco
from segment_anything import SamAutomaticMaskGenerator, sam_model_registry
from segment_anything.modeling import Sam

from pipeline.console import Console
from pipeline.errors import ConfigError, MaskmillError
from pipeline.images import images
from stages.models.device import pick_device
from stages.propose.generator.mask_generator import MaskGenerator
from stages.propose.generator.sam import load_sam
from stages.sandbox.world.world import render
from tools.sandbox.sam_metrics import GENERATOR

Pixels = npt.NDArray[np.uint8]
Rles = list[str]

_FOUND = (0.5, 0.75, 0.9)  # IoU from which on a mask counts as found
_SEED = 3_000_000  # of scenes that nothing was chosen on
console = Console()


@dataclass
class Timed:
    """One way to propose masks, and what came of it.

    Attributes:
        propose: Run lengths of an image's masks.
        seconds: By the clock, over all images.
        cpu_seconds: Of this process.
        masks: By image.
    """

    propose: Callable[[Pixels], Rles]
    seconds: float = 0
    cpu_seconds: float = 0
    masks: list[Rles] = field(default_factory=list)

    def run(self, pixels: Pixels) -> None:
        """Proposes masks in one image."""
        start, cpu_start = time.perf_counter(), time.process_time()
        self.masks.append(self.propose(pixels))
        self.seconds += time.perf_counter() - start
        self.cpu_seconds += time.process_time() - cpu_start


def main(
    model: Annotated[
        Literal["sandbox", "vit_b", "vit_l", "vit_h"], typer.Option(help="Which SAM.")
    ] = "sandbox",
    weights: Annotated[Path | None, typer.Option(help="Its checkpoint; else random.")] = None,
    count: Annotated[int, typer.Option("--images", min=1, help="Images to run on.")] = 10,
    folder: Annotated[Path | None, typer.Option(help="Photos; else drawn web scenes.")] = None,
    size_px: Annotated[int, typer.Option(min=32, help="Long side of photos.")] = 512,
    points_per_side: Annotated[int, typer.Option(min=1, help="Points along a side.")] = 32,
    points_per_batch: Annotated[int, typer.Option(min=1, help="Points a forward.")] = 64,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto.")] = "auto",
    output: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
) -> None:
    """Print seconds an image, the ratio to the official generator, and the agreement with it."""
    try:
        sam = _sam(model, weights).to(pick_device(device))
        pictures = _pictures(model, count, folder, size_px)
    except MaskmillError as error:
        console.error(str(error))
        raise typer.Exit(1) from error
    options: dict[str, Any] = {"points_per_side": points_per_side}
    options["points_per_batch"] = points_per_batch
    if model == "sandbox":
        options = {**GENERATOR, **options}
    elif weights is None:
        options |= {"pred_iou_thresh": 0.0}
    ways = {
        "official": Timed(_official(sam, options)),
        "exact": Timed(_own(sam, {**options, "mode": "exact"})),
        "fast": Timed(_own(sam, {**options, "mode": "fast"})),
    }
    if sam.device.type == "cuda" or model == "sandbox":  # the first pass sets libraries up
        for way in ways.values():
            way.propose(pictures[0])
    with console.progress("propose", len(pictures), "images") as progress:
        for pixels in pictures:
            for way in ways.values():
                way.run(pixels)
            progress.advance()
    figures = {name: _figures(way, ways["official"], pictures) for name, way in ways.items()}
    title = f"{model} on {sam.device.type}, {len(pictures)} images, {points_per_side}² points"
    columns: tuple[str, ...] = (
        "",
        "s/image",
        "CPU s/image",
        "ratio",
        "CPU ratio",
        "masks",
        "mean IoU",
    )
    columns += tuple(f"recall {iou}" for iou in _FOUND)
    rows = [
        (
            name,
            *(f"{own[key]:.3g}" for key in list(own)[:5]),
            *(f"{own[key]:.4f}" for key in list(own)[5:]),
        )
        for name, own in figures.items()
    ]
    console.table(title, columns, rows)
    if output is not None:
        known = {"model": model, "weights": str(weights), "device": sam.device.type}
        output.write_text(json.dumps({**known, **options, "figures": figures}, indent=2) + "\n")


def _sam(model: str, weights: Path | None) -> Sam:
    if model == "sandbox" or weights is not None:
        return load_sam(model, weights)
    torch.manual_seed(0)
    sam: Sam = sam_model_registry[model]()
    return sam.eval()


def _pictures(model: str, count: int, folder: Path | None, size_px: int) -> list[Pixels]:
    """Images to run on; the sandbox's SAM gets them as large as it sees them.

    Raises:
        ConfigError: The folder has too few.
        UnreadableImageError: One of them is none.
    """
    if folder is None:
        size_px = 128 if model == "sandbox" else size_px
        return [images.fit(render("web", _SEED, index).image, size_px) for index in range(count)]
    files = sorted(path for path in folder.glob("*") if path.is_file())[:count]
    if len(files) < count:
        raise ConfigError(
            f"{len(files)} files, not {count}", where=str(folder), fix="lower --images"
        )
    return [images.fit(images.decode_image(path.read_bytes()).pixels, size_px) for path in files]


def _official(sam: Sam, options: dict[str, Any]) -> Callable[[Pixels], Rles]:
    generator = SamAutomaticMaskGenerator(sam, output_mode="coco_rle", **options)
    return lambda pixels: [mask["segmentation"]["counts"] for mask in generator.generate(pixels)]


def _own(sam: Sam, options: dict[str, Any]) -> Callable[[Pixels], Rles]:
    generator = MaskGenerator(sam, **options)
    return lambda pixels: [proposal.rle for proposal in generator([pixels])[0]]


def _figures(way: Timed, official: Timed, pictures: Sequence[Pixels]) -> dict[str, float]:
    """Times an image, their ratios, and how well the official masks are found, if there are any."""
    best = np.concatenate(
        [
            _best_ious(expected, found, pixels.shape[:2])
            for expected, found, pixels in zip(official.masks, way.masks, pictures, strict=True)
        ]
    )
    return {
        "seconds": way.seconds / len(pictures),
        "cpu_seconds": way.cpu_seconds / len(pictures),
        "ratio": official.seconds / way.seconds,
        "cpu_ratio": official.cpu_seconds / way.cpu_seconds,
        "masks": sum(map(len, way.masks)) / len(pictures),
        "mean_iou": float(best.mean()) if len(best) else float("nan"),
        **{
            f"recall_{iou}": float((best >= iou).mean()) if len(best) else float("nan")
            for iou in _FOUND
        },
    }


def _best_ious(expected: Rles, found: Rles, size: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """The IoU of each expected mask with the best fitting mask, 0 if there is none."""
    if not expected or not found:
        return np.zeros(len(expected))
    wanted, given = (
        [{"size": list(size), "counts": rle.encode()} for rle in rles] for rles in (expected, found)
    )
    ious: npt.NDArray[np.float64] = coco.iou(wanted, given, [0] * len(given))
    best: npt.NDArray[np.float64] = ious.max(axis=1)
    return best


if __name__ == "__main__":
    typer.run(main)
