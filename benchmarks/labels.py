"""Accuracy of labels on drawn scenes that were not used for any choice.

    python -m benchmarks.labels --seed 3000000 --count 300 --config configs/sandbox-ensemble.yaml

It scores the labelers of a config, except those that need label files, and `sam_clip` with other
rules. Ensembles combine what their members would store. Scenes are scaled to
`pseudolabel.size_px`, and masks follow the section `propose`, as in the stages. Rules are chosen on
other seeds than the reported ones:

    python -m benchmarks.labels --seed 2000000 --count 100 --share 0.5 --share 0.7 --power 1
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, product
from pathlib import Path
from typing import Annotated, Literal

import torch
import typer

from pipeline.config import config as config_file
from pipeline.config.config import Config
from pipeline.console import Console
from pipeline.errors import ConfigError, MaskmillError
from pipeline.images import images
from pipeline.images.overlay import resized
from stages.graph import GRAPH
from stages.labels.confusion import Confusion
from stages.labels.pseudo_labels import PseudoLabels
from stages.models.device import pick_device
from stages.propose.config import GeneratorConfig, ProposeConfig
from stages.propose.generator.mask_generator import MaskGenerator
from stages.propose.generator.sam import load_sam
from stages.propose.output import Proposals
from stages.pseudolabel.config import PseudolabelConfig
from stages.pseudolabel.dependency_rounds import dependency_rounds
from stages.pseudolabel.inputs import LabelerInput, batch_of, bounded
from stages.pseudolabel.labelers.base import Labeler
from stages.pseudolabel.labelers.sam_clip import SamClip, SamClipConfig
from stages.pseudolabel.stored_labels import as_stored
from stages.sandbox.world.world import Scene, render

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
    """Print the mean IoU of every labeler, over all classes of the config's vocabulary."""
    try:
        sections = {stage.name: stage.Config for stage in GRAPH}
        loaded = config_file.load(config, sections, overrides or [])
        labelers = dict(_labelers(loaded, share or [], power or []))
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
    config: Config, shares: list[float], powers: list[float]
) -> Iterator[tuple[str, Labeler]]:
    """The labelers to compare, by what to call them, not loaded; ensembles after their members."""
    section, vocabulary = _section(config), config.vocabulary
    own = {name: choice.create(vocabulary) for name, choice in section.labelers.items()}
    for name in ("dense_clip", "sam_clip"):
        if name not in own:
            where = f"{config.path}: pseudolabel.labelers.{name}"
            raise ConfigError("no such labeler", where=where, fix="add it: its keys are used")
    members = {name: labeler.members for name, labeler in own.items()}
    for name in chain(*dependency_rounds(members, f"{config.path}: pseudolabel.labelers")):
        if not own[name].needs_label_files:
            yield name, own[name]
    rule = section.labelers["sam_clip"].config.model_dump()
    paint = SamClipConfig.model_validate({**rule, "fusion": "paint"})
    yield "sam_clip paint", SamClip(paint, vocabulary)
    if not (shares or powers):
        return
    for share, power in product(shares or [rule["sam_share"]], powers or [rule["power"]]):
        keys = {"fusion": "soft", "sam_share": share, "power": power}
        soft = SamClipConfig.model_validate({**rule, **keys})
        yield f"sam_clip soft, share {share:g}, power {power:g}", SamClip(soft, vocabulary)


def _section(config: Config) -> PseudolabelConfig:
    section = config.sections.get("pseudolabel")
    if not isinstance(section, PseudolabelConfig):
        raise ConfigError("no section `pseudolabel`", where=str(config.path), fix="add it")
    return section


def _score(
    config: Config, labelers: dict[str, Labeler], scenes: list[Scene]
) -> dict[str, dict[str, float]]:
    """Scores by labeler and by the names they have in the metrics manifest."""
    propose, section = config.sections.get("propose"), _section(config)
    if not isinstance(propose, ProposeConfig):
        raise ConfigError("no section `propose`", where=str(config.path), fix="add it")
    device = pick_device(section.device)
    sam = load_sam(propose.model, propose.checkpoint(console)).to(device)
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
            original = bounded(scene.image, section.max_side_px)
            item = LabelerInput(pixels, proposals, original=original)
            batch = batch_of([item], section.size_px)
            truth = resized(scene.classes, height, width)
            stored: dict[str, PseudoLabels] = {}
            for name, labeler in labelers.items():
                members = tuple(stored[member] for member in labeler.members)
                with torch.inference_mode():
                    labels = labeler(replace(batch, members=members))
                stored[name] = as_stored(labels, batch)
                mask = stored[name].mask[0, :height, :width].to(torch.uint8)
                confusions[name].add(truth, mask.numpy())
            progress.advance()
    scores = {name: confusion.scores(names) for name, confusion in confusions.items()}
    return {
        name: {score: value for score, value in own.items() if value is not None}
        for name, own in scores.items()
    }


if __name__ == "__main__":
    typer.run(main)
