"""The report card: scores of a labeler on the labeled images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config.config import Config
from pipeline.config.config_section import Facts
from pipeline.engine.stage import Context, Unit
from pipeline.records import arrays, manifest, tables
from pipeline.records.rows import CardRow
from pipeline.records.sharded_table import ShardedTable, digest_rows
from stages.labels.score_table import ScoreTable
from stages.pseudolabel.output import card_part

_VERSION = 1
"""Raised when the same labels get another card than before."""

_STORED = "stored"


@dataclass(frozen=True)
class ReportCards:
    """The cards of a run: what they are made from, and the making of them.

    Attributes:
        context: The run.
        images: All images that labelers label, by shard.
        labels: Labeler, shard and facts of everything to be labeled.
    """

    context: Context
    images: ShardedTable
    labels: Sequence[tuple[str, int, Facts]]

    @cached_property
    def units(self) -> dict[str, Unit]:
        """A unit a labeler; none where no image is labeled by hand.

        Its facts are digests of what makes the labels, not of the labels: it is planned before they
        are there, and what touches both is told once, of the shards.
        """
        images, vocabulary = self._labeled, self.context.config.vocabulary
        shards = {row // self.images.shard_size for row in images["row"].to_pylist()}
        labels: dict[str, list[Facts]] = {}
        for labeler, shard, made_from in self.labels:
            if shard in shards:
                own = {key: value for key, value in made_from.items() if key != "inputs.images"}
                labels.setdefault(labeler, []).append(own)
        reading = vocabulary.class_facts()
        for scheme in sorted(images["label_scheme"].unique().to_pylist(), key=str):
            reading |= vocabulary.scheme_facts(scheme)
        facts: Facts = {
            "report_card.version": _VERSION,
            "inputs.labeled images": digest_rows(images.select(["row", "image_id", "mask_id"])),
            "inputs.classes or label scheme": manifest.digest(reading),
        }
        return {
            name: Unit(
                f"{name} report card",
                card_part(self.context.config.manifests, name),
                {**facts, "inputs.labels": manifest.digest(own_labels)},
            )
            for name, own_labels in labels.items()
        }

    def write(self, units: Sequence[Unit]) -> None:
        """Judges the labelers whose cards are among these units; their labels are made.

        Raises:
            DataError: A label file can no longer be read.
        """
        config = self.context.config
        plain = config.sections["pseudolabel"].model_dump(mode="json")
        for name, unit in self.units.items():
            if unit in units:
                rows = report_card_rows(config, name, self._labeled)
                failed = self._labeled.num_rows - rows[0]["images"]
                table = tables.REPORT_CARD.rows(rows)
                manifest.write_part(unit.part, table, unit.facts, plain, failed=failed)

    def show(self) -> None:
        """Prints the cards that are as planned, and says which are not."""
        console = self.context.console
        if not self.units:
            console.line("no report card: no image is labeled by hand")
        is_fresh = {n: manifest.read_facts(u.part) == u.facts for n, u in self.units.items()}
        for table in read_tables(self.context.config, [n for n in is_fresh if is_fresh[n]]):
            console.table(table.title, table.header, table.rows)
        for name in is_fresh:
            if not is_fresh[name]:
                console.line(f"no report card of {name} yet: it comes when all shards are done")

    def unplanned(self) -> list[Path]:
        """Cards that are there and not planned."""
        planned = {unit.part for unit in self.units.values()}
        folder = self.context.config.manifests / tables.REPORT_CARD.name
        return [part for part in folder.glob("part-*.parquet") if part not in planned]

    @cached_property
    def _labeled(self) -> pa.Table:
        images = self.images.table
        is_labeled = pc.equal(images["role"], arrays.text("labeled"))
        return images.filter(pc.and_(is_labeled, pc.is_valid(images["mask_uri"])))


def report_card_rows(config: Config, labeler: str, images: pa.Table) -> list[CardRow]:
    """Scores a labeler: a row for the stored confidence, then a row for each calibration.

    Calibrations are scored by cross-validation; the maps in the rows are fitted on all images.

    Args:
        config: The run's config.
        labeler: The labeler's name in the config.
        images: Rows of the labeled images.

    Raises:
        DataError: A label file can no longer be read.
    """
    from stages.labels.confusion import Confusion
    from stages.pseudolabel import calibration
    from stages.pseudolabel.labels_with_truth import judged_labels

    num_classes = config.vocabulary.num_classes
    confusion, num_images = Confusion.empty(num_classes), 0

    def counted() -> Iterator[calibration.Counts]:
        nonlocal num_images
        for label in judged_labels(config, labeler, images):
            num_images += 1
            confusion.add(label.truth, label.mask)
            yield calibration.count(label.truth, label.mask, label.confidence, num_classes)

    folds = calibration.count_folds(counted(), images.num_rows, num_classes)
    known = confusion.counts.sum()
    scores: CardRow = {
        "labeler": labeler,
        "images": num_images,
        "miou": confusion.miou,
        "pixel_accuracy": confusion.pixel_accuracy,
        "coverage": float(confusion.counts[:, :-1].sum() / max(1, known)),
        "class_iou": [
            float(iou) if occurs else None
            for iou, occurs in zip(confusion.iou, confusion.occurs, strict=True)
        ],
    }
    stored: CardRow = {**scores, "calibration": _STORED, **_reliability(folds.sum(axis=0))}
    rows = [stored]
    for method in calibration.METHODS:
        row: CardRow = {**scores, "calibration": method}
        if (validated := calibration.held_out(folds, method)) is not None:
            maps = calibration.fit(folds, method)
            assert maps is not None
            (own,) = np.nonzero(calibration.has_own_map(folds))
            row |= _reliability(validated)
            row |= {"maps": maps.tolist(), "own_map_class_ids": own.tolist()}
        rows.append(row)
    return rows


def read_tables(config: Config, labelers: Sequence[str]) -> list[ScoreTable]:
    """Tables that compare the cards of labelers, overall and by class; none without a card."""
    cards: dict[str, dict[str, CardRow]] = {}
    for labeler in labelers:
        if (part := card_part(config.manifests, labeler)).exists():
            rows: list[CardRow] = manifest.read_part(part, tables.REPORT_CARD).to_pylist()
            if len(rows[0]["class_iou"]) == config.vocabulary.num_classes:
                cards[labeler] = {row["calibration"]: row for row in rows}
    if not cards:
        return []
    overall, by_class = [], []
    for labeler, card in cards.items():
        stored = card[_STORED]
        scores: list[float | None] = [stored["miou"], stored["pixel_accuracy"], stored["coverage"]]
        scores += [stored["mean_confidence"], *(row["ece"] for row in card.values())]
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


def _reliability(counts: npt.NDArray[np.int64]) -> CardRow:
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
