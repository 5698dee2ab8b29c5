"""What later stages read of pseudolabel."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import manifest

_READ = ("row", "store", "height", "width", "fingerprint", "status")


def labels_folder(manifests: Path, labeler: str) -> Path:
    """The folder of a labeler's parts."""
    return manifests / manifest.PSEUDO_LABELS.name / f"labeler={labeler}"


def read_labels(manifests: Path, labeler: str) -> pa.Table:
    """A labeler's good labels, in the order of rows."""
    labels = manifest.read(labels_folder(manifests, labeler), manifest.PSEUDO_LABELS, _READ)
    return labels.filter(pc.equal(labels["status"], "ok"))


def of_rows(table: pa.Table, others: pa.Table) -> pa.Table:
    """Of a table what has the row of something in another table."""
    return table.filter(pc.is_in(table["row"], others["row"].combine_chunks()))
