"""Compares how trainings are scored with how their crops look, and with their presets' papers."""

from __future__ import annotations

from pipeline.config.config import Config
from pipeline.engine.findings import Findings
from stages.models.segmenters.protocol import protocol_of
from stages.train.config import TrainConfig
from stages.train.data.scale_check import Sizes


def check_protocols(config: Config, section: TrainConfig, findings: Findings) -> None:
    """Finds presets that are scored by another protocol than in their papers.

    Args:
        config: The run.
        section: Its section `train`.
        findings: Gets a warning for each such preset and dataset.
    """
    found: dict[str, list[str]] = {}
    for name, variant in section.variants.items():
        if "evaluate" not in config.sections and variant.validate_every is None:
            continue  # nothing is scored
        with findings.collecting():
            published = variant.published_protocol
            used = protocol_of(config, published)
            if published is not None and not used.predicts_as(published):
                dataset = "" if variant.dataset is None else f" on {variant.dataset}"
                what = f"{variant.preset}{dataset} was scored by {published.spelled()}"
                found.setdefault(what, []).append(name)
    for what, variants in found.items():
        findings.warn(
            f"{config.where('evaluate')}: in its paper {what}; scores of {', '.join(variants)} are "
            "by another protocol and cannot be compared with it; set `evaluate: {protocol: "
            "published}` without other keys"
        )


def check_sizes(config: Config, section: TrainConfig, findings: Findings) -> None:
    """Finds trainings whose crops never have the size that images are scored at; after ingest."""
    sizes, fix = Sizes.of(config), "fit `scale`, or `evaluate.short_side_px`"
    for name, variant in section.variants.items():
        with findings.collecting():
            protocol = protocol_of(config, variant.published_protocol)
            if what := sizes.mismatch(variant, protocol):
                findings.warn(f"{config.where('train', 'variants', name)}: {what}; {fix}")
