"""The output of pseudolabel: where labels and report cards are, and how they are read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import stopping
from pipeline.config.config import Config
from pipeline.config.config_section import Facts
from pipeline.errors import DataError
from pipeline.records import arrays, manifest, part_file, tables
from pipeline.records.redone import Redone
from pipeline.records.rows import CardRow, ImageRow, LabelRow
from stages.ingest.output import read_images
from stages.labels.score_table import ScoreTable
from stages.pseudolabel.config import PseudolabelConfig

Calibration = Literal["temperature", "isotonic"]
"""Ways to calibrate confidences, as the report card names them."""

STORED = "stored"
"""The report card's name for confidences as they are stored."""

Bytes = npt.NDArray[np.uint8]

_READ = ("row", "shard", "image_id", "store", "height", "width", "fingerprint", "status")


def labeler_cache(run: Config) -> Path:
    """The folder that labelers keep in what takes long and can be had again."""
    return run.artifacts / "labeler_cache"


def labels_folder(manifests: Path, labeler: str) -> Path:
    """The folder of a labeler's parts."""
    return manifests / tables.PSEUDO_LABELS.name / f"labeler={labeler}"


def labels_part(manifests: Path, labeler: str, shard: int) -> Path:
    """The part of a labeler's shard."""
    return labels_folder(manifests, labeler) / part_file.part_name(shard)


def read_labels(
    manifests: Path, labeler: str, images: pa.Table, more: tuple[str, ...] = ()
) -> pa.Table:
    """A labeler's good labels of these images as they are now, in the order of rows.

    A label belongs to the bytes of its image: that of a former file in the same row is left out.

    Args:
        manifests: The folder of the run's manifests.
        labeler: The labeler.
        images: Rows of the images manifest.
        more: Names of further columns.
    """
    labels = manifest.read(labels_folder(manifests, labeler), tables.PSEUDO_LABELS, _READ + more)
    labels = of_rows(arrays.having(labels, "status", "ok"), images)
    of = pc.index_in(labels["row"], arrays.whole(images["row"]))
    return labels.filter(pc.equal(labels["image_id"], images["image_id"].take(of)))


def label_classes(config: Config, labeler: str, labels: pa.Table) -> Iterator[set[int]]:
    """Yields the classes that labels show, shard by shard: only the parts hold them.

    Args:
        config: The run.
        labeler: The labeler.
        labels: Rows of its labels, as `read_labels`.
    """
    for shard in labels["shard"].unique().to_pylist():
        part = labels_part(config.manifests, labeler, shard)
        rows = of_rows(manifest.read_part(part, tables.PSEUDO_LABELS, ["row", "class_ids"]), labels)
        yield {class_id for ids in rows["class_ids"].to_pylist() for class_id in ids or ()}


def labels_redone(manifests: Path, labeler: str, roles: Sequence[str], what: str) -> Facts:
    """The fact of a unit that reads labels, if some of them were done again on request.

    Args:
        manifests: The folder of the run's manifests.
        labeler: The labeler.
        roles: Roles of the images whose labels are read.
        what: How to name the labels.
    """

    def parts() -> Iterator[Path]:
        shards = read_images(manifests, roles, ("shard",))["shard"].unique().to_pylist()
        return (labels_part(manifests, labeler, shard) for shard in shards)

    return Redone(manifests).facts(what, parts)


def of_rows(table: pa.Table, others: pa.Table) -> pa.Table:
    """The rows of a table whose `row` is in another table."""
    return table.filter(pc.is_in(table["row"], arrays.whole(others["row"])))


def classes_shown(config: Config, labeler: str) -> frozenset[int] | None:
    """The classes that a labeler's labels can show; None = maybe any."""
    section = config.section(PseudolabelConfig)
    choice = None if section is None else section.labelers.get(labeler)
    return None if choice is None else choice.create(config.vocabulary).shows()


def copies_label_files(config: Config, labeler: str) -> bool:
    """Whether a labeler's labels are the label files of the images themselves."""
    section = config.section(PseudolabelConfig)
    choice = None if section is None else section.labelers.get(labeler)
    return choice is not None and choice.component.needs_label_files


def card_part(manifests: Path, labeler: str) -> Path:
    """The part that holds a labeler's report card."""
    return manifests / tables.REPORT_CARD.name / f"part-{labeler}.parquet"


def read_calibration(
    config: Config, labeler: str, calibration: Calibration
) -> npt.NDArray[np.uint8]:
    """The maps that calibrate a labeler's stored confidences.

    Returns:
        (C, 256) uint8: by class id the calibrated level of each stored one.

    Raises:
        DataError: There is no report card of these classes yet, or too few images for maps.
    """
    part = card_part(config.manifests, labeler)
    if not part_file.exists(part):
        fix = "label images by hand (a source of role labeled with masks), and run pseudolabel"
        raise DataError(f"no report card of {labeler} to calibrate with", where=str(part), fix=fix)
    columns = ["calibration", "maps"]
    rows = manifest.read_part(part, tables.REPORT_CARD, columns).to_pylist()
    (maps,) = (row["maps"] for row in rows if row["calibration"] == calibration)
    if maps is None:
        raise too_few_to_calibrate(labeler, str(part))
    if len(maps) != config.vocabulary.num_classes:
        what = f"the report card of {labeler} is of {len(maps)} classes"
        raise DataError(what, where=str(part), fix="run `maskmill run pseudolabel`")
    return np.array(maps, np.uint8)


def too_few_to_calibrate(labeler: str, where: str) -> DataError:
    """The error for calibrated confidences of a labeler without two labeled images."""
    what = f"fewer than two labeled images to calibrate {labeler} on"
    fix = "label more images by hand, or use `confidence: stored`"
    return DataError(what, where=where, fix=fix)


@dataclass(frozen=True)
class LabelWithTruth:
    """A stored label and the hand-made mask of its image, both at the mask's resolution.

    Attributes:
        image: The images row.
        truth: (H, W) uint8 class ids, 255 = ignore.
        mask: (H, W) uint8 class ids, 255 = ignore.
        confidence: (H, W) uint8, 255 = certain: that of each pixel's cell, as training reads it.
    """

    image: ImageRow
    truth: Bytes
    mask: Bytes
    confidence: Bytes


def labels_with_truth(config: Config, labeler: str, images: pa.Table) -> Iterator[LabelWithTruth]:
    """Yields a labeler's good labels of those of these images that have a label file, in order.

    Raises:
        DataError: A label file can no longer be read.
        StorageError: The labels are damaged.
    """
    from pipeline.images.overlay import resized
    from pipeline.records.label_reader import LabelReader, StoredLabel
    from stages.labels.images import read_mask

    found: list[LabelRow] = read_labels(config.manifests, labeler, images).to_pylist()
    labels = {row["row"]: StoredLabel.of(config.run.workspace, row) for row in found}
    reader = LabelReader()
    for image in images.to_pylist():
        stopping.check()
        label = labels.get(image["row"])
        if label is None or image["mask_uri"] is None:
            continue
        ((mask, confidence),) = reader.read([label])
        truth = read_mask(image, config.vocabulary)
        height, width = truth.shape
        yield LabelWithTruth(
            image, truth, resized(mask, height, width), resized(confidence, height, width)
        )


def card_tables(config: Config, labelers: Sequence[str]) -> list[ScoreTable]:
    """Tables that compare the cards of labelers, overall and by class; none without a card."""
    cards: dict[str, dict[str, CardRow]] = {}
    for labeler in labelers:
        if part_file.exists(part := card_part(config.manifests, labeler)):
            rows: list[CardRow] = manifest.read_part(part, tables.REPORT_CARD).to_pylist()
            if len(rows[0]["class_iou"]) == config.vocabulary.num_classes:
                cards[labeler] = {row["calibration"]: row for row in rows}
    if not cards:
        return []
    overall, by_class = [], []
    for labeler, card in cards.items():
        stored = card[STORED]
        scores: list[float | None] = [stored["miou"], stored["pixel_accuracy"], stored["coverage"]]
        scores += [stored["mean_confidence"], *(row["ece"] for row in card.values())]
        name = f"{labeler} (copies these files)" if _is_copy(config, labeler) else labeler
        overall.append((name, str(stored["images"]), *map(_percent, scores)))
    for class_id, name in enumerate(config.vocabulary.class_names):
        ious = (card[STORED]["class_iou"] for card in cards.values())
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


def _is_copy(config: Config, labeler: str) -> bool:
    """Whether a labeler gives the label files themselves, so that its card says nothing."""
    section = config.section(PseudolabelConfig)
    choice = None if section is None else section.labelers.get(labeler)
    return choice is not None and choice.name == "files"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
