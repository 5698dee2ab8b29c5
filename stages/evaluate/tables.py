"""The tables that compare variants, from the metrics manifest alone."""

from dataclasses import dataclass
from typing import Any

from pipeline import manifest
from pipeline.config import Config
from stages.pseudolabel.stage import PseudolabelConfig
from stages.train.config import TrainConfig

SPLITS = ("val", "test")
"""Images that variants are scored on; where there are both, the report shows the last."""


@dataclass(frozen=True)
class ScoreTable:
    """A table to print.

    Attributes:
        title: What it shows.
        header: Column names.
        rows: Texts, as many a row as there are columns.
    """

    title: str
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]


def read_tables(config: Config) -> list[ScoreTable]:
    """Tables of the variants, of their classes, and of the labelers; without those that are empty.

    IoU is in percent, the mean over all classes of the vocabulary.
    """
    scores: dict[tuple[str, str], dict[str, float]] = {}
    for row in _metrics(config):
        scores.setdefault((row["variant"], row["split"]), {})[row["name"]] = row["value"]
    train = config.sections.get("train")
    variants = train.variants if isinstance(train, TrainConfig) else {}
    titles = {name: variant.title or name for name, variant in variants.items()}
    splits = [s for s in SPLITS if any((name, s) in scores for name in titles)]
    rows = [
        (title, *(_percent(scores.get((name, split), {}), "miou") for split in splits))
        for name, title in titles.items()
    ]
    tables = []
    if splits:
        header = ("training variant", *(f"{split} mIoU" for split in splits))
        tables.append(ScoreTable("mean IoU, %", header, rows))
        last = splits[-1]
        names = config.vocabulary.class_names
        per_class = [
            (name, *(_percent(scores.get((v, last), {}), f"iou/{name}") for v in titles))
            for name in names
        ]
        header = ("class", *titles)
        tables.append(ScoreTable(f"IoU by class on {last}, %", header, per_class))
    pseudolabel = config.sections.get("pseudolabel")
    configured = pseudolabel.labelers if isinstance(pseudolabel, PseudolabelConfig) else {}
    labelers = {n: scores[n, "labeled"] for n in configured if (n, "labeled") in scores}
    if labelers:
        rows = [
            (name, _percent(own, "miou"), _percent(own, "pixel_accuracy"))
            for name, own in labelers.items()
        ]
        header = ("labeler", "mIoU", "pixels right")
        title = "labelers against the masks of the labeled images, %"
        tables.append(ScoreTable(title, header, rows))
    return tables


def _metrics(config: Config) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = manifest.read(
        config.manifests / manifest.METRICS.name, manifest.METRICS
    ).to_pylist()
    return [row for row in rows if row["split"] != "train"]


def _percent(scores: dict[str, float], name: str) -> str:
    return f"{100 * scores[name]:.1f}" if name in scores else "-"
