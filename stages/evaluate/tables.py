"""The tables that compare variants and labelers, from their scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import get_args

from pipeline.config.config import Config
from stages.evaluate.score_key import BEST, SPLITS, ScoreKey
from stages.ingest.config import Role
from stages.labels.score_table import ScoreTable
from stages.pseudolabel.config import PseudolabelConfig
from stages.train.config import TrainConfig, VariantConfig

_OTHER_SCORES = {
    "nan_miou": "mIoU of classes that occur",
    "boundary_miou": "boundary mIoU",
    "pixel_accuracy": "pixels right",
}
"""Names in the metrics manifest, and their titles in tables."""

Scores = Mapping[ScoreKey, Mapping[str, float | None]]
"""By name; None where the images have no pixel whose class is known."""


def build_tables(
    config: Config, scores: Scores, only_classes: Mapping[str, str] | None = None
) -> list[ScoreTable]:
    """Tables of the variants, of their classes, and of the labelers; without those that are empty.

    IoU is in percent, the mean over all classes of the vocabulary. Of several seeds a table has the
    mean and, where there is room, the sample standard deviation.

    Args:
        config: The run.
        scores: By model and split.
        only_classes: By split the class that all its true pixels have, where that is so; there a
            network that gives this class everywhere scores best, and no gain is shown.
    """
    train, pseudolabel = config.section(TrainConfig), config.section(PseudolabelConfig)
    variants = {} if train is None else train.variants
    labelers = [] if pseudolabel is None else list(pseudolabel.labelers)
    return [
        *_variant_tables(scores, variants, config.vocabulary.class_names, only_classes or {}),
        *_labeler_tables(scores, labelers),
    ]


def _variant_tables(
    scores: Scores,
    variants: Mapping[str, VariantConfig],
    class_names: Sequence[str],
    only_classes: Mapping[str, str],
) -> list[ScoreTable]:
    """Mean IoU on every split, with the gain over the first variant; other scores; IoU by class.

    All but the first are of the last split, as the gain is: the mean of the differences at equal
    seeds, which see the same labeled crops.
    """

    def found(name: str, split: str, score: str) -> dict[int, float | None]:
        """A variant's score by seed."""
        keys = {seed: ScoreKey("training", name, seed, split) for seed in variants[name].seeds}
        scored = {seed: scores.get(key, {}) for seed, key in keys.items()}
        return {seed: own[score] for seed, own in scored.items() if score in own}

    def of(name: str, split: str, score: str) -> dict[int, float]:
        """The same where there is one."""
        scored = found(name, split, score).items()
        return {seed: value for seed, value in scored if value is not None}

    splits = [split for split in SPLITS if any(found(name, split, "miou") for name in variants)]
    if not splits:
        return []
    titles = {name: variant.title or name for name, variant in variants.items()}
    (first, *others), last = titles, splits[-1]
    shown = [(split, score) for split in splits for score in ("miou", f"{BEST}miou")]
    shown = [
        (split, score)
        for split, score in shown
        if score == "miou" or any(of(name, split, score) for name in variants)
    ]
    header = ["training variant"]
    header += [f"{split} mIoU" if score == "miou" else f"{split} best" for split, score in shown]
    rows = [
        [title, *(_spread([*of(name, split, score).values()]) for split, score in shown)]
        for name, title in titles.items()
    ]
    counts = sorted({len(variant.seeds) for variant in variants.values()})
    seeds = " to ".join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))
    spread_told = f", mean ± sample standard deviation of {seeds} seeds" if seeds != "1" else ""
    mean_note = f", mean of {seeds} seeds" if seeds != "1" else ""
    title = f"mean IoU, %{spread_told}"
    if others:
        title += f"; gain over {titles[first]} on {last}"
        if len({frozenset(variant.seeds) for variant in variants.values()}) > 1:
            title += " at equal seeds"
        header.append("gain")
        base = of(first, last, "miou")
        for name, row in zip(titles, rows, strict=True):
            own = of(name, last, "miou")
            gains = [own[seed] - base[seed] for seed in own if seed in base and name != first]
            row.append("-" if last in only_classes else _spread(gains, "+.1f"))
    other_rows = [
        (title, *(_mean([*of(name, last, score).values()]) for score in _OTHER_SCORES))
        for name, title in titles.items()
    ]
    is_other_known = any(cell != "-" for row in other_rows for cell in row[1:])
    other_header = ("training variant", *_OTHER_SCORES.values())
    other = ScoreTable(f"other scores on {last}, %{mean_note}", other_header, other_rows)
    by_class = [
        (each, *(_mean([*of(name, last, f"iou/{each}").values()]) for name in titles))
        for each in class_names
    ]
    unknown = [split for split in splits if not any(of(name, split, "miou") for name in variants)]
    if unknown:
        title += f"; no pixel of {' and '.join(unknown)} has a class in its label file"
    for split in (split for split in splits if split in only_classes):
        title += f"; {split} shows no class but {only_classes[split]}: a constant scores best"
    if len(shown) > len(splits):
        title += "; best = best epoch on val, which is selection on val"
    return [
        ScoreTable(title, tuple(header), [tuple(row) for row in rows]),
        *([other] if is_other_known else []),
        ScoreTable(f"IoU by class on {last}, %{mean_note}", ("class", *titles), by_class),
    ]


def _labeler_tables(scores: Scores, labelers: Sequence[str]) -> list[ScoreTable]:
    rows: list[tuple[str, ...]] = [
        (name, role, _mean([found["miou"]]), _mean([found["pixel_accuracy"]]))
        for name in labelers
        for role in get_args(Role)
        for found in [scores.get(ScoreKey("labeler", name, None, role), {})]
        if found
    ]
    title = "labelers against the label files of the images they labeled, %"
    header = ("labeler", "images", "mIoU", "pixels right")
    return [ScoreTable(title, header, rows)] if rows else []


def _mean(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{100 * mean(known):.1f}" if known else "-"


def _spread(values: Sequence[float], form: str = ".1f") -> str:
    """Mean and sample standard deviation in percent; only the mean for a single value."""
    if not values:
        return "-"
    text = f"{100 * mean(values):{form}}"
    return f"{text} ± {100 * stdev(values):.1f}" if len(values) > 1 else text
