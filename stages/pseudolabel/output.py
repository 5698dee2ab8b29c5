"""What later stages read of pseudolabel."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import manifest, tables

_READ = ("row", "store", "height", "width", "fingerprint", "status")


def labels_folder(manifests: Path, labeler: str) -> Path:
    """The folder of a labeler's parts."""
    return manifests / tables.PSEUDO_LABELS.name / f"labeler={labeler}"


def labels_part(manifests: Path, labeler: str, shard: int) -> Path:
    """The part of a labeler's shard."""
    return labels_folder(manifests, labeler) / f"part-{shard:05d}.parquet"


def read_labels(manifests: Path, labeler: str) -> pa.Table:
    """A labeler's good labels, in the order of rows."""
    labels = manifest.read(labels_folder(manifests, labeler), tables.PSEUDO_LABELS, _READ)
    return labels.filter(pc.equal(labels["status"], "ok"))


def of_rows(table: pa.Table, others: pa.Table) -> pa.Table:
    """Of a table what has the row of something in another table."""
    return table.filter(pc.is_in(table["row"], others["row"].combine_chunks()))
