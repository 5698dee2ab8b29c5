"""The tables of a run, column by column; `manifest.py` writes and reads them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa


@dataclass(frozen=True)
class Table:
    """A kind of manifest.

    Attributes:
        name: Its folder below manifests/<run>/.
        description: What one row is, for the data dictionary.
        schema: Arrow schema; every field has metadata ``description``.
    """

    name: str
    description: str
    schema: pa.Schema

    def rows(self, rows: Iterable[Mapping[str, Any]]) -> pa.Table:
        """Rows as an Arrow table of this schema; a missing column is null."""
        return pa.Table.from_pylist([dict(row) for row in rows], schema=self.schema)


def _schema(*columns: tuple[str, pa.DataType, str]) -> pa.Schema:
    return pa.schema(
        [pa.field(name, kind, metadata={"description": text}) for name, kind, text in columns]
    )


SCENES = Table(
    "scenes",
    "A drawn image of the embedded sandbox; only runs with a `sandbox` section have this table.",
    _schema(
        ("uri", pa.string(), "path of the image file, below the run's data folder"),
        ("role", pa.string(), "folder it was drawn into: labeled, unlabeled, ood, val or test"),
        ("domain", pa.string(), "look of the scene: id or web"),
        ("seed", pa.int64(), "seed of the world"),
        ("index", pa.int64(), "number of the scene; (domain, seed, index) draws it again"),
        ("caption", pa.string(), "what is in the scene, in words"),
    ),
)

IMAGES = Table(
    "images",
    "An image of a source, good or bad. Rows never move; (shard, row) is where its labels are.",
    _schema(
        (
            "image_id",
            pa.string(),
            "first 16 hex digits of the SHA-256 of the file's bytes; then @low-high where a "
            "`value_range` changes its pixels, and @stored where `exif_orientation: ignore` does",
        ),
        ("uri", pa.string(), "path of the image file; in a tar, archive#name@first byte+size"),
        ("source", pa.string(), "name of the source in the config"),
        ("role", pa.string(), "labeled, unlabeled, ood, val or test"),
        ("mask_uri", pa.string(), "path of the label file; null where there is none"),
        ("mask_id", pa.string(), "first 16 hex digits of the SHA-256 of the label file's bytes"),
        ("label_scheme", pa.string(), "the vocabulary's scheme that reads the label file"),
        ("mask_class_ids", pa.list_(pa.uint8()), "class ids that occur in the label file"),
        (
            "mask_ignored",
            pa.float32(),
            "share of the label file's pixels that are ignored, 0 to 1; null in parts of versions "
            "that did not count them",
        ),
        ("width", pa.int32(), "pixels, after EXIF orientation; null where unreadable"),
        ("height", pa.int32(), "pixels, after EXIF orientation; null where unreadable"),
        ("format", pa.string(), "format found in the file: JPEG, PNG, ..."),
        ("shard", pa.int32(), "unit of work, of the Parquet part and of the Zarr shard file"),
        ("row", pa.int64(), "position in the label arrays; shard = row // shard size"),
        (
            "status",
            pa.string(),
            "ok, rejected (unreadable), failed (not readable at that time; the next run tries "
            "again), duplicate (by content) or gone",
        ),
        ("error_message", pa.string(), "why the status is not ok"),
        ("caption", pa.string(), "the source's text for the image; null where it has none"),
        ("url", pa.string(), "where the source got the image; null where it does not say"),
        (
            "stamp",
            pa.string(),
            "of the image file as it was read: size, mtime, ctime, inode; of an object size, ETag",
        ),
        (
            "mask_stamp",
            pa.string(),
            "the same of the label file; of one that is drawn from annotations, its name",
        ),
        ("remark", pa.string(), "what to look at in an image that is ok; null for most"),
    ),
)

PROPOSALS = Table(
    "proposals",
    "SAM's masks of an image, the sure ones first; they overlap and know no class. The lists have "
    "an item a mask.",
    _schema(
        ("image_id", pa.string(), "the image, as in `images`"),
        ("shard", pa.int32(), "shard of the image"),
        ("row", pa.int64(), "row of the image, as in `images`"),
        (
            "height",
            pa.int32(),
            "rows of the masks: the image's, its long side brought to `size_px`",
        ),
        ("width", pa.int32(), "columns of the masks"),
        ("num_masks", pa.int32(), "how many masks there are"),
        (
            "rle",
            pa.list_(pa.string()),
            "COCO's compressed run-length `counts`; size = height, width",
        ),
        ("area", pa.list_(pa.int32()), "pixels of the mask"),
        ("bbox", pa.list_(pa.list_(pa.int32(), 4)), "left, top, right - left, bottom - top in px"),
        ("predicted_iou", pa.list_(pa.float32()), "SAM's own estimate of the mask's IoU"),
        ("stability_score", pa.list_(pa.float32()), "IoU of the mask cut lower and cut higher"),
        ("seconds", pa.float32(), "time that the image's masks took"),
        ("status", pa.string(), "ok, or failed: the file could no longer be read"),
        ("error_message", pa.string(), "why the status is not ok"),
    ),
)

PSEUDO_LABELS = Table(
    "pseudo_labels",
    "A pseudo-label of one labeler for one image. The folder's partition column is `labeler`.",
    _schema(
        ("image_id", pa.string(), "the image, as in `images`"),
        ("shard", pa.int32(), "shard of the image"),
        ("row", pa.int64(), "position in the arrays `mask` and `confidence` of `store`"),
        ("store", pa.string(), "Zarr group that holds the label, below the workspace"),
        ("height", pa.int32(), "rows of the label that are image; the rest of the canvas is 255"),
        ("width", pa.int32(), "columns of the label that are image"),
        ("coverage", pa.float32(), "share of the image's pixels that are not ignore, 0 to 1"),
        ("mean_confidence", pa.float32(), "mean over the covered pixels, 0 to 1"),
        ("class_ids", pa.list_(pa.uint8()), "classes that occur, ascending"),
        ("class_fractions", pa.list_(pa.float32()), "share of the image's pixels of each"),
        ("seconds", pa.float32(), "labeling time of the image's batch, shared evenly"),
        ("status", pa.string(), "ok, or failed: the file could no longer be read"),
        ("error_message", pa.string(), "why the status is not ok"),
        ("fingerprint", pa.string(), "of all the shard was made from; equal means equal labels"),
    ),
)

REPORT_CARD = Table(
    "report_card",
    "How good a labeler's labels of the labeled images are, and its confidences under one "
    "calibration. Only pixels with a true class count. A part a labeler.",
    _schema(
        ("labeler", pa.string(), "its name in the config"),
        ("images", pa.int32(), "labeled images it was scored on"),
        (
            "miou",
            pa.float64(),
            "mean of `class_iou`, 0 to 1; absent classes count 0; this and the next two are null "
            "where no true class is known",
        ),
        ("pixel_accuracy", pa.float64(), "share of the pixels that are labeled right, 0 to 1"),
        ("coverage", pa.float64(), "share of the pixels that have a label, 0 to 1"),
        (
            "class_iou",
            pa.list_(pa.float64()),
            "IoU by class id, 0 to 1; null: neither in the truth nor in the labels",
        ),
        (
            "calibration",
            pa.string(),
            "which confidence the columns after this one are of: stored, or calibrated by "
            "temperature or isotonic, each image by what was fitted on others",
        ),
        ("mean_confidence", pa.float64(), "mean over the labeled pixels, 0 to 1"),
        ("ece", pa.float64(), "expected calibration error over 15 bins, 0 to 1"),
        ("bin_share", pa.list_(pa.float64()), "share of the labeled pixels in each of 15 bins"),
        ("bin_confidence", pa.list_(pa.float64()), "their mean confidence; null in an empty bin"),
        ("bin_accuracy", pa.list_(pa.float64()), "share of them that is right; likewise"),
        (
            "maps",
            pa.list_(pa.list_(pa.uint8())),
            "by class id the calibrated level (0 to 255) of each stored one, fitted on all images; "
            "null: too few",
        ),
        ("own_map_class_ids", pa.list_(pa.uint8()), "classes whose map is not that of all classes"),
    ),
)

METRICS = Table(
    "metrics",
    "One number that a stage measured.",
    _schema(
        ("run", pa.string(), "name of the run"),
        ("kind", pa.string(), "what the row measures: training or labeler"),
        ("variant", pa.string(), "name of the training variant, or of the labeler"),
        ("seed", pa.int64(), "seed of the training; null for a labeler"),
        ("step", pa.int64(), "training steps done when it was measured"),
        (
            "epoch",
            pa.float32(),
            "passes over the unlabeled images (the OOD images of a training that learns only from "
            "these, the labeled images of one that learns from no others)",
        ),
        ("split", pa.string(), "images it was measured on: train, or the role of the images"),
        (
            "name",
            pa.string(),
            "in training loss/<term>, learning_rate, labeled/<source> (share of the pixels that a "
            "label source labels), agreement/<source>/<source> (share that two call the same, of "
            "what both label); else miou (absent classes count 0), nan_miou (mean over classes "
            "that occur), pixel_accuracy, iou/<class>, boundary_iou/<class>, boundary_miou (mean "
            "over classes that occur), where a class that occurs nowhere has no IoU of its own; "
            "the same after best/ of the weights that were best on val",
        ),
        (
            "value",
            pa.float64(),
            "the number; IoU, accuracy and shares from 0 to 1; null where no true class is known",
        ),
    ),
)

CONFUSION = Table(
    "confusion",
    "How many pixels of one class were predicted as another: a cell of the confusion matrix of one "
    "model on one split, empty ones too. "
    "`rows.pivot(index='true_id', columns='predicted_id', values='pixels')` is the matrix, "
    "where `rows` are those of one `kind`, `variant`, `seed` and `split`.",
    _schema(
        ("run", pa.string(), "name of the run"),
        ("kind", pa.string(), "as in `metrics`"),
        ("variant", pa.string(), "as in `metrics`"),
        ("seed", pa.int64(), "as in `metrics`"),
        ("step", pa.int64(), "as in `metrics`"),
        ("split", pa.string(), "as in `metrics`"),
        ("true_id", pa.uint8(), "class id in the label file"),
        ("true_class", pa.string(), "name of that class"),
        ("predicted_id", pa.uint8(), "class id in the prediction; 255 where it was left open"),
        ("predicted_class", pa.string(), "name of that class; null where it was left open"),
        ("pixels", pa.int64(), "how many pixels, over all images of the split"),
    ),
)

REPORT = Table(
    "report",
    "A file of the HTML report, in `artifacts/<run>/report`.",
    _schema(
        ("file", pa.string(), "name of the file"),
        ("kind", pa.string(), "page, labels or predictions"),
        ("title", pa.string(), "heading of the picture on the page"),
        ("columns", pa.string(), "what the columns of the picture show; null for the page"),
    ),
)

PREDICTIONS = Table(
    "predictions",
    "An image that `maskmill predict` was given. One file, `predictions.parquet` in its folder "
    "`--out`.",
    _schema(
        ("image", pa.string(), "path of the image; a place in a tar, or a frame of a video"),
        ("name", pa.string(), "path of its files below `masks`, `overlays`, ..., without ending"),
        ("image_id", pa.string(), "first 16 hex digits of the SHA-256 of the file's bytes"),
        ("stamp", pa.string(), "of the file as it was listed: size, mtime, ctime, inode or ETag"),
        ("width", pa.int32(), "pixels of image and mask, after EXIF orientation"),
        ("height", pa.int32(), "pixels of image and mask, after EXIF orientation"),
        ("class_ids", pa.list_(pa.uint8()), "classes that were predicted, ascending"),
        ("class_fractions", pa.list_(pa.float32()), "share of the image's pixels of each"),
        ("mean_confidence", pa.float32(), "mean probability of the predicted classes, 0 to 1"),
        ("status", pa.string(), "ok, rejected (unreadable) or failed (the next call tries again)"),
        ("error_message", pa.string(), "why the status is not ok"),
    ),
)

TABLES = (
    SCENES,
    IMAGES,
    PROPOSALS,
    PSEUDO_LABELS,
    REPORT_CARD,
    METRICS,
    CONFUSION,
    REPORT,
    PREDICTIONS,
)


def data_dictionary() -> str:
    """The text of manifests/README.md: every table and column."""
    lines = [
        "# Data dictionary",
        "",
        "Every table but the last is a folder of Parquet parts below `manifests/<run>/`; read it "
        "whole:",
        "",
        '    pd.read_parquet("manifests/sandbox/images")',
        '    polars.read_parquet("manifests/sandbox/images")',
        "    duckdb.sql(\"SELECT * FROM 'manifests/sandbox/images/*.parquet'\")",
        '    datasets.load_dataset("parquet", data_dir="manifests/sandbox/images")',
        "",
        "A part's key-value metadata (`maskmill`, JSON) holds its fingerprint, the facts behind",
        "it, the resolved config section and library versions.",
        "",
        "This page is generated: `python -m pipeline.records.tables > manifests/README.md`.",
    ]
    for table in TABLES:
        lines += ["", f"## {table.name}", "", table.description, "", "| column | type | meaning |"]
        lines += ["|---|---|---|"]
        for field in table.schema:
            meaning = field.metadata[b"description"].decode()
            lines.append(f"| `{field.name}` | {field.type} | {meaning} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    import sys

    sys.stdout.write(data_dictionary())
