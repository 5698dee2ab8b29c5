"""What stage one costs beside its models, and what a changed class list costs.

    python -m benchmarks.pseudolabel
    python -m benchmarks.pseudolabel --sam vit_b --images 8 --device cuda

The real command labels images with `sam_clip` from nothing: ingest, SAM's masks, labels in the
store. Then a class is added to the vocabulary, and it is run again: masks and texts are kept.
Against that stands the time that a process spends inside the networks alone, over the same images
at the batch sizes that are best, images and masks at hand.

Each command starts a process, imports torch and reads weights, which a run of many images does not
feel; so all is run with one image too, and that is taken off in the rows "beyond the first image".
Of commands the CPU time is that of all their threads; on a busy machine it is the fairer one.

Published models get random weights where no file is named. SAM's masks pass the predicted IoU then
and none is stable, see `benchmarks.propose`: all are drawn and scaled, none is stored or pooled.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import open_clip
import torch
import typer
import yaml
from PIL import Image
from safetensors.torch import save_file
from segment_anything import sam_model_registry

from benchmarks.pseudolabel_models import Cost, Pixels, clip_forwards, sam_forwards
from pipeline.config import config as config_file
from pipeline.console import Console
from pipeline.errors import MaskmillError
from pipeline.images import images
from stages.graph import GRAPH
from stages.models.device import pick_device
from stages.sandbox.world.world import render
from tools.sandbox.sam_metrics import GENERATOR

_SEED = 3_000_000  # of scenes that nothing was chosen on


_CLIP = "ViT-B-16"


_IMAGES_A_BATCH = 16


console = Console()


def main(
    sam: Annotated[
        Literal["sandbox", "vit_b", "vit_l", "vit_h"],
        typer.Option(help=f"Which SAM; beside a published one the CLIP is {_CLIP}."),
    ] = "sandbox",
    sam_weights: Annotated[Path | None, typer.Option(help="Its checkpoint; else random.")] = None,
    clip_weights: Annotated[Path | None, typer.Option(help="CLIP's; else random.")] = None,
    count: Annotated[int, typer.Option("--images", min=2, help="Images to label.")] = 64,
    points_per_side: Annotated[int, typer.Option(min=1, help="SAM's points along a side.")] = 32,
    repeats: Annotated[int, typer.Option(min=1, help="Times to run all; the least counts.")] = 1,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto.")] = "auto",
    folder: Annotated[Path | None, typer.Option(help="Where to write, deleted at the end.")] = None,
    output: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
) -> None:
    """Print both ratios."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        try:
            models = _models(Path(place), sam, sam_weights, clip_weights)
            models["propose"] |= {"points_per_side": points_per_side}
            pictures = _draw(Path(place), count, models["propose"]["size_px"])
            where = pick_device(device)
            costs = _measured(Path(place), models, pictures, where, repeats)
        except MaskmillError as error:
            console.error(str(error))
            raise typer.Exit(1) from error
    rows = _rows(costs, len(pictures))
    title = f"{sam} on {where.type}, {count} images, {points_per_side}² points"
    header = ("", "seconds", "CPU seconds", "ratio", "CPU ratio")
    console.table(title, header, [(name, *(_cell(value) for value in own)) for name, *own in rows])
    if output is not None:
        known = {"sam": sam, "device": where.type, "images": count, "points": points_per_side}
        figures = {name: dict(zip(header[1:], own, strict=True)) for name, *own in rows}
        output.write_text(json.dumps({**known, "figures": figures}, indent=2) + "\n")


def _measured(
    place: Path,
    models: dict[str, dict[str, Any]],
    pictures: Sequence[Pixels],
    device: torch.device,
    repeats: int,
) -> dict[str, Cost]:
    """Of everything the least that it cost."""
    costs: dict[str, Cost] = {}

    def note(name: str, cost: Cost) -> None:
        costs[name] = cost.least(costs.get(name, Cost()))

    for repeat in range(repeats):
        config = place / "config.yaml"
        for images_of, beginning in (("all", ""), ("one", "one ")):
            _write_config(place, models, f"{images_of}-{repeat}", images_of, device)
            note(f"{beginning}scratch", _command("run", "pseudolabel", "--config", config))
            _write_vocabulary(place, one_more=True)
            note(f"{beginning}changed", _command("run", "pseudolabel", "--config", config))
            _write_vocabulary(place)
        loaded = config_file.load(config, {stage.name: stage.Config for stage in GRAPH})
        note("sam", sam_forwards(loaded, pictures, device))
        note("clip", clip_forwards(loaded, pictures, device))
        console.note(f"{repeat + 1} of {repeats} done")
    return costs


def _rows(costs: dict[str, Cost], count: int) -> list[tuple[str, float, float, float, float]]:
    """Name, seconds, CPU seconds, and ratios of both, where there are any."""
    nothing = Cost(float("nan"), float("nan"))
    forwards = costs["sam"] + costs["clip"]
    beyond = costs["scratch"] - costs["one scratch"]
    changed = costs["changed"] - costs["one changed"]
    table = {
        "forwards of SAM": (costs["sam"], nothing, nothing),
        "forwards of CLIP": (costs["clip"], nothing, nothing),
        "from scratch, over its forwards": (costs["scratch"], costs["scratch"], forwards),
        "  beyond the first image": (beyond, beyond, forwards * (1 - 1 / count)),
        "another class list, times faster": (costs["changed"], costs["scratch"], costs["changed"]),
        "  beyond the first image ": (changed, beyond, changed),
    }
    return [
        (name, own.wall, own.cpu, above.wall / below.wall, above.cpu / below.cpu)
        for name, (own, above, below) in table.items()
    ]


def _models(
    place: Path, sam: str, sam_weights: Path | None, clip_weights: Path | None
) -> dict[str, dict[str, Any]]:
    """Keys of the sections; random weights are written where none are given."""
    if sam == "sandbox":
        propose = {**GENERATOR, "model": sam, "size_px": 128}
        clip = {"model": "sandbox", "window_px": 96, "stride_px": 48}
        return {"propose": propose, "clip": clip}
    propose = {"model": sam, "weights": str(sam_weights), "size_px": 512}
    torch.manual_seed(0)
    if sam_weights is None:
        propose |= {"weights": str(place / "sam.safetensors"), "pred_iou_thresh": 0.0}
        save_file(sam_model_registry[sam]().state_dict(), place / "sam.safetensors")
    if clip_weights is None:
        clip_weights = place / "clip.safetensors"
        # Not by open_clip's `create_model`, which warns that there are no weights.
        network = open_clip.CLIP(**open_clip.get_model_config(f"{_CLIP}-quickgelu"))
        save_file(network.state_dict(), clip_weights)
    clip = {"model": f"{_CLIP}-quickgelu", "weights": str(clip_weights)}
    windows = {"short_side_px": 336, "window_px": 224, "stride_px": 112}
    return {"propose": propose, "clip": {**clip, **windows}}


def _draw(place: Path, count: int, size_px: int) -> list[Pixels]:
    """Scenes as files, all and one; what a reader makes of them."""
    found = []
    for index in range(count):
        scene = images.fit(render("web", _SEED, index).image, size_px)
        for name in ("all", "one")[: 2 if index == 0 else 1]:
            path = place / name / f"{index:05d}.jpg"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(scene).save(path, quality=90)
        found.append(images.decode_image((place / f"all/{index:05d}.jpg").read_bytes()).pixels)
    return found


def _write_config(
    place: Path, models: dict[str, dict[str, Any]], run: str, source: str, device: torch.device
) -> None:
    propose = models["propose"]
    labelers = {"sam_clip": {"name": "sam_clip", **models["clip"], "power": 1}}
    values = {
        "run": run,
        "workspace": str(place),
        "data": str(place),
        "vocabulary": "vocabulary.yaml",
        "ingest": {
            "sources": {"web": {"role": "ood", "source": {"name": "folder", "images": source}}}
        },
        "propose": {**propose, "device": device.type},
        "pseudolabel": {
            **{"labelers": labelers, "size_px": propose["size_px"], "device": device.type},
            "batch_size": _IMAGES_A_BATCH,
        },
    }
    (place / "config.yaml").write_text(yaml.safe_dump(values))
    _write_vocabulary(place)


def _write_vocabulary(place: Path, *, one_more: bool = False) -> None:
    """The sandbox's class list, or with one of its background concepts a class."""
    values = yaml.safe_load(Path("configs/vocabularies/sandbox.yaml").read_text())
    if one_more:
        name = values["background_concepts"].pop()
        values["classes"].append({"name": name, "color": "#123456"})
    (place / "vocabulary.yaml").write_text(yaml.safe_dump(values))


def _command(*arguments: object) -> Cost:
    """Runs the command line.

    Raises:
        SystemExit: It failed; what it printed is printed.
    """
    command = [sys.executable, "-m", "maskmill", *map(str, arguments)]
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return Cost(time.perf_counter() - start, cpu)


def _cell(value: float) -> str:
    return "" if value != value else f"{value:.3g}"


if __name__ == "__main__":
    typer.run(main)
