"""The report card: a labeler judged on the labeled images, where the truth is known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline import manifest, tables
from pipeline.config import Config
from pipeline.section import Facts
from pipeline.sharded import digest_rows
from pipeline.stage import Context, Unit
from stages.pseudolabel.output import card_part
from stages.score_table import ScoreTable

VERSION = 1
"""Raised when the same labels get another card than before."""

_STORED = "stored"

Rows = list[dict[str, Any]]


def card_unit(config: Config, labeler: str, images: pa.Table, labels: Sequence[Facts]) -> Unit:
    """The unit that a labeler's card is.

    Its facts are digests of what makes the labels, not the labels: it is planned before they are
    there, and what touches both is told once, of the shards.

    Args:
        config: The run.
        labeler: Its name in the config.
        images: Rows of the images to judge it on.
        labels: What the shards that hold them are made from, beside their images.
    """
    vocabulary = config.vocabulary
    reading = vocabulary.class_facts()
    for scheme in sorted(images["label_scheme"].unique().to_pylist(), key=str):
        reading |= vocabulary.scheme_facts(scheme)
    facts: Facts = {
        "report_card.version": VERSION,
        "inputs.labels": manifest.digest(list(labels)),
        "inputs.labeled images": digest_rows(images.select(["row", "image_id", "mask_id"])),
        "inputs.classes or label scheme": manifest.digest(reading),
    }
    return Unit(f"{labeler} report card", card_part(config.manifests, labeler), facts)


def write_card(config: Config, labeler: str, unit: Unit, images: pa.Table) -> None:
    """Judges a labeler and commits its card.

    Raises:
        DataError: A label file can no longer be read.
    """
    rows = judge(config, labeler, images)
    plain = config.sections["pseudolabel"].model_dump(mode="json")
    failed = images.num_rows - rows[0]["images"]
    manifest.write_part(unit.part, tables.REPORT_CARD.rows(rows), unit.facts, plain, failed=failed)


def show_cards(context: Context, units: Mapping[str, Unit]) -> None:
    """Prints the cards of labelers that are as these units have them, and which are not."""
    if not units:
        context.console.line("no report card: no image is labeled by hand")
    fresh = [name for name, unit in units.items() if manifest.read_facts(unit.part) == unit.facts]
    for table in read_tables(context.config, fresh):
        context.console.table(table.title, table.header, table.rows)
    for name in units:
        if name not in fresh:
            context.console.line(f"no report card of {name}: shards with labeled images are to do")


def judge(config: Config, labeler: str, images: pa.Table) -> Rows:
    """A labeler's rows of the report card, one a calibration, the stored confidence first.

    Calibrations are judged on images that they were not fitted on; their maps, for others to use,
    are fitted on all.

    Args:
        config: The run.
        labeler: Its name in the config.
        images: Rows of the images to judge it on.

    Raises:
        DataError: A label file can no longer be read.
    """
    from stages.confusion import Confusion
    from stages.pseudolabel import calibration
    from stages.pseudolabel.judged import judged_labels

    num_classes = config.vocabulary.num_classes
    confusion, judged = Confusion.empty(num_classes), 0

    def counted() -> Iterator[calibration.Counts]:
        nonlocal judged
        for label in judged_labels(config, labeler, images):
            judged += 1
            confusion.add(label.truth, label.mask)
            yield calibration.count(label.truth, label.mask, label.confidence, num_classes)

    folds = calibration.count_folds(counted(), images.num_rows, num_classes)
    known = confusion.counts.sum()
    occurs = confusion.counts.sum(axis=1) + confusion.counts[:, :-1].sum(axis=0) > 0
    about = {
        "labeler": labeler,
        "images": judged,
        "miou": confusion.miou,
        "pixel_accuracy": confusion.pixel_accuracy,
        "coverage": float(confusion.counts[:, :-1].sum() / max(1, known)),
        "class_iou": [
            float(iou) if there else None for iou, there in zip(confusion.iou, occurs, strict=True)
        ],
    }
    rows = [{**about, "calibration": _STORED, **_reliability(folds.sum(axis=0))}]
    for method in calibration.METHODS:
        row = {**about, "calibration": method}
        if (apart := calibration.held_out(folds, method)) is not None:
            maps = calibration.fit(folds, method)
            assert maps is not None
            (own,) = np.nonzero(calibration.has_own_map(folds))
            row |= {**_reliability(apart), "maps": maps.tolist(), "own_map_class_ids": own.tolist()}
        rows.append(row)
    return rows


def read_tables(config: Config, labelers: Sequence[str]) -> list[ScoreTable]:
    """The cards of these labelers side by side, overall and by class; without any, nothing."""
    cards: dict[str, dict[str, dict[str, Any]]] = {}
    for labeler in labelers:
        if (part := card_part(config.manifests, labeler)).exists():
            rows: Rows = manifest.read_part(part, tables.REPORT_CARD).to_pylist()
            if len(rows[0]["class_iou"]) == config.vocabulary.num_classes:
                cards[labeler] = {row["calibration"]: row for row in rows}
    if not cards:
        return []
    overall, by_class = [], []
    for labeler, card in cards.items():
        stored = card[_STORED]
        scores = [stored[key] for key in ("miou", "pixel_accuracy", "coverage", "mean_confidence")]
        scores += [row["ece"] for row in card.values()]
        overall.append((labeler, str(stored["images"]), *map(_percent, scores)))
    for class_id, name in enumerate(config.vocabulary.class_names):
        ious = (card[_STORED]["class_iou"] for card in cards.values())
        by_class.append((name, *(_percent(iou[class_id]) for iou in ious)))
    title = (
        "report card: labelers against the label files of the labeled images, %; ECE as stored, "
        "and calibrated by temperature or isotonic on images left out of the fit"
    )
    header = ("labeler", "images", "mIoU", "pixels right", "coverage", "confidence", "ECE")
    return [
        ScoreTable(title, (*header, "temperature", "isotonic"), overall),
        ScoreTable("IoU by class on the labeled images, %", ("class", *cards), by_class),
    ]


def _reliability(counts: npt.NDArray[np.int64]) -> dict[str, Any]:
    from stages.pseudolabel.calibration import Reliability

    if (found := Reliability.of(counts)) is None:
        return {}
    return {
        "mean_confidence": found.mean_confidence,
        "ece": found.ece,
        "bin_share": found.share.tolist(),
        "bin_confidence": _nullable(found.confidence),
        "bin_accuracy": _nullable(found.accuracy),
    }


def _nullable(values: npt.NDArray[np.float64]) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in values]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
