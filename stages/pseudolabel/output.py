"""What later stages read of pseudolabel."""

from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config.config import Config
from pipeline.errors import DataError
from pipeline.records import arrays, manifest, tables

Calibration = Literal["temperature", "isotonic"]
"""Ways to calibrate confidences, as the report card names them."""

_READ = ("row", "store", "height", "width", "fingerprint", "status")


def labeler_cache(run: Config) -> Path:
    """The folder that labelers keep in what takes long and can be had again."""
    return run.artifacts / "labeler_cache"


def labels_folder(manifests: Path, labeler: str) -> Path:
    """The folder of a labeler's parts."""
    return manifests / tables.PSEUDO_LABELS.name / f"labeler={labeler}"


def labels_part(manifests: Path, labeler: str, shard: int) -> Path:
    """The part of a labeler's shard."""
    return labels_folder(manifests, labeler) / manifest.part_name(shard)


def read_labels(manifests: Path, labeler: str) -> pa.Table:
    """A labeler's good labels, in the order of rows."""
    labels = manifest.read(labels_folder(manifests, labeler), tables.PSEUDO_LABELS, _READ)
    return arrays.having(labels, "status", "ok")


def of_rows(table: pa.Table, others: pa.Table) -> pa.Table:
    """Of a table what has the row of something in another table."""
    return table.filter(pc.is_in(table["row"], arrays.whole(others["row"])))


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
    if not part.exists():
        fix = "label images by hand (a source of role labeled with masks), and run pseudolabel"
        raise DataError(f"no report card of {labeler} to calibrate with", where=str(part), fix=fix)
    columns = ["calibration", "maps"]
    rows = manifest.read_part(part, tables.REPORT_CARD, columns).to_pylist()
    (maps,) = (row["maps"] for row in rows if row["calibration"] == calibration)
    if maps is None:
        what = f"fewer than two labeled images to calibrate {labeler} on"
        fix = "label more images by hand, or use `confidence: stored`"
        raise DataError(what, where=str(part), fix=fix)
    if len(maps) != config.vocabulary.num_classes:
        what = f"the report card of {labeler} is of {len(maps)} classes"
        raise DataError(what, where=str(part), fix="run `maskmill run pseudolabel`")
    return np.array(maps, np.uint8)
