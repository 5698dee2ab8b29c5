"""Types of manifest rows as dicts; `tables.py` describes the columns.

A row has the columns that were read or are to be written, so no key is required.
`tests/pipeline/test_rows.py` compares the names with the tables.
"""

from typing import TypedDict


class ImageRow(TypedDict, total=False):
    """A row of `images`."""

    image_id: str
    uri: str
    source: str
    role: str
    mask_uri: str | None
    mask_id: str | None
    label_scheme: str | None
    mask_class_ids: list[int] | None
    mask_ignored: float | None
    width: int | None
    height: int | None
    format: str | None
    shard: int
    row: int
    status: str
    error_message: str | None
    caption: str | None
    url: str | None
    stamp: str | None
    mask_stamp: str | None
    remark: str | None


class ProposalsRow(TypedDict, total=False):
    """A row of `proposals`."""

    image_id: str
    shard: int
    row: int
    height: int | None
    width: int | None
    num_masks: int
    rle: list[str]
    area: list[int]
    bbox: list[list[int]]
    predicted_iou: list[float]
    stability_score: list[float]
    seconds: float | None
    status: str
    error_message: str | None


class LabelRow(TypedDict, total=False):
    """A row of `pseudo_labels`."""

    image_id: str
    shard: int
    row: int
    store: str
    height: int | None
    width: int | None
    coverage: float
    mean_confidence: float | None
    class_ids: list[int]
    class_fractions: list[float]
    seconds: float | None
    status: str
    error_message: str | None
    fingerprint: str


class CardRow(TypedDict, total=False):
    """A row of `report_card`."""

    labeler: str
    images: int
    miou: float | None
    pixel_accuracy: float | None
    coverage: float | None
    class_iou: list[float | None]
    calibration: str
    mean_confidence: float | None
    ece: float | None
    bin_share: list[float] | None
    bin_confidence: list[float | None] | None
    bin_accuracy: list[float | None] | None
    maps: list[list[int]] | None
    own_map_class_ids: list[int] | None


class MetricRow(TypedDict, total=False):
    """A row of `metrics`."""

    run: str
    kind: str
    variant: str
    seed: int | None
    step: int | None
    epoch: float | None
    split: str
    name: str
    value: float | None


class ConfusionRow(TypedDict, total=False):
    """A row of `confusion`."""

    run: str
    kind: str
    variant: str
    seed: int | None
    step: int | None
    split: str
    true_id: int
    true_class: str
    predicted_id: int
    predicted_class: str | None
    pixels: int


class SceneRow(TypedDict, total=False):
    """A row of `scenes`."""

    uri: str
    role: str
    domain: str
    seed: int
    index: int
    caption: str


class ReportRow(TypedDict, total=False):
    """A row of `report`."""

    file: str
    kind: str
    title: str
    columns: str | None


class PredictionRow(TypedDict, total=False):
    """A row of `predictions`."""

    image: str
    name: str
    image_id: str | None
    stamp: str | None
    width: int | None
    height: int | None
    class_ids: list[int] | None
    class_fractions: list[float] | None
    mean_confidence: float | None
    status: str
    error_message: str | None
