"""How right labels are on drawn scenes that nothing was chosen on: dense CLIP, and SAM + CLIP.

    python -m benchmarks.labels --seed 3000000 --count 300

The keys are those of a config's labelers `dense_clip` and `sam_clip` and of its section `propose`;
the scenes are fitted to `pseudolabel.size_px` as the stages would. Rules are chosen on other seeds
than reported:

    python -m benchmarks.labels --seed 2000000 --count 100 --share 0.5 --share 0.7 --power 1
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import typer

from pipeline import config as config_file
from pipeline import images
from pipeline.config import Config
from pipeline.console import Console
from pipeline.errors import ConfigError, MaskmillError
from pipeline.overlay import resized
from stages.confusion import Confusion
from stages.device import pick_device
from stages.graph import GRAPH
from stages.propose.config import GeneratorConfig, ProposeConfig
from stages.propose.mask_generator import MaskGenerator
from stages.propose.output import Proposals
from stages.propose.sam import load_sam
from stages.pseudolabel.clip_labeler import ClipLabeler
from stages.pseudolabel.clip_weights import ClipConfig
from stages.pseudolabel.inputs import LabelerInput, batch_of
from stages.pseudolabel.labelers.dense_clip import DenseClip
from stages.pseudolabel.labelers.sam_clip import SamClip, SamClipConfig
from stages.pseudolabel.stage import PseudolabelConfig
from stages.sandbox.world import Scene, render

console = Console()


def main(
    seed: Annotated[int, typer.Option(help="Seed of the world.")] = 3_000_000,
    count: Annotated[int, typer.Option(min=1, help="Scenes to draw.")] = 300,
    domain: Annotated[Literal["web", "id"], typer.Option(help="Look of the scenes.")] = "web",
    share: Annotated[
        list[float] | None, typer.Option(help="sam_share if not the config's.")
    ] = None,
    power: Annotated[list[float] | None, typer.Option(help="power if not the config's.")] = None,
    config: Annotated[Path, typer.Option(help="The config to take keys from.")] = Path(
        "configs/sandbox.yaml"
    ),
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="As of maskmill.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--json", help="Write the scores here.")] = None,
) -> None:
    """Print the mean IoU of every rule, over all classes of the config's vocabulary."""
    try:
        sections = {stage.name: stage.Config for stage in GRAPH}
        loaded = config_file.load(config, sections, overrides or [])
        labelers = dict(_labelers(loaded, share, power))
        scores = _score(loaded, labelers, [render(domain, seed, index) for index in range(count)])
    except MaskmillError as error:
        console.error(str(error))
        raise typer.Exit(1) from error
    dense = scores["dense_clip"]["miou"]
    rows = [
        (name, f"{own['miou']:.4f}", f"{own['miou'] - dense:+.4f}", f"{own['pixel_accuracy']:.4f}")
        for name, own in scores.items()
    ]
    title = f"labels of {count} {domain} scenes, seed {seed}"
    console.table(title, ("labeler", "mIoU", "over dense", "pixel accuracy"), rows)
    if output is not None:
        result = {"seed": seed, "count": count, "domain": domain, "scores": scores}
        output.write_text(json.dumps(result, indent=2) + "\n")


def _labelers(
    config: Config, shares: list[float] | None, powers: list[float] | None
) -> Iterator[tuple[str, ClipLabeler]]:
    """The labelers to compare, by what to call them, not loaded."""
    keys, vocabulary = _keys(config, "dense_clip", ClipConfig), config.vocabulary
    rule = _keys(config, "sam_clip", SamClipConfig)
    yield "dense_clip", DenseClip(ClipConfig(**keys), vocabulary)
    paint = SamClipConfig.model_validate({**rule, "fusion": "paint"})
    yield "sam_clip paint", SamClip(paint, vocabulary)
    for share in shares or [rule["sam_share"]]:
        for power in powers or [rule["power"]]:
            own = {"fusion": "soft", "sam_share": share, "power": power}
            soft = SamClipConfig.model_validate({**rule, **own})
            yield f"sam_clip soft, share {share:g}, power {power:g}", SamClip(soft, vocabulary)


def _keys(config: Config, name: str, kind: type[ClipConfig]) -> dict[str, Any]:
    """The keys of a labeler of the config."""
    section = config.sections.get("pseudolabel")
    choice = section.labelers.get(name) if isinstance(section, PseudolabelConfig) else None
    if choice is None or not isinstance(choice.config, kind):
        where = f"{config.path}: pseudolabel.labelers.{name}"
        raise ConfigError("no such labeler", where=where, fix="add it: its keys are used")
    return choice.config.model_dump(include=set(kind.model_fields))


def _score(
    config: Config, labelers: dict[str, ClipLabeler], scenes: list[Scene]
) -> dict[str, dict[str, float]]:
    """Scores by labeler and by the names they have in the metrics manifest."""
    propose, section = config.sections.get("propose"), config.sections["pseudolabel"]
    assert isinstance(section, PseudolabelConfig)
    if not isinstance(propose, ProposeConfig):
        raise ConfigError("no section `propose`", where=str(config.path), fix="add it")
    device = pick_device(section.device)
    sam = load_sam(propose.model, propose.weights).to(device)
    options = propose.model_dump(include=set(GeneratorConfig.model_fields))
    generator = MaskGenerator(sam, **options)
    for labeler in labelers.values():
        labeler.load(device)
    names = config.vocabulary.class_names
    confusions = {name: Confusion.empty(len(names)) for name in labelers}
    with console.progress("labels", len(scenes), "scenes") as progress:
        for scene in scenes:
            pixels = images.fit(scene.image, section.size_px)
            height, width = pixels.shape[:2]
            [found] = generator([pixels])
            proposals = Proposals(
                (height, width),
                tuple(proposal.rle for proposal in found),
                tuple(proposal.predicted_iou for proposal in found),
                tuple(proposal.stability_score for proposal in found),
            )
            batch = batch_of([LabelerInput(pixels, proposals)], section.size_px)
            truth = resized(scene.classes, height, width)
            for name, labeler in labelers.items():
                with torch.inference_mode():
                    mask = labeler.label(batch).mask[0, :height, :width]
                confusions[name].add(truth, mask.to("cpu", torch.uint8).numpy())
            progress.advance()
    return {name: confusion.scores(names) for name, confusion in confusions.items()}


if __name__ == "__main__":
    typer.run(main)
