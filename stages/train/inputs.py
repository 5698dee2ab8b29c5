"""The images and labels that a training reads, from the manifests, and how long it is by them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pipeline.config.config import Config
from pipeline.errors import DataError
from pipeline.records import tables
from stages.ingest.output import read_images
from stages.models.segmenters.protocol import WHOLE_IMAGE, Protocol
from stages.pseudolabel.output import of_rows, read_labels
from stages.train.config import VariantConfig

if TYPE_CHECKING:
    from stages.train.data.crops import TrainImage


def protocol_of(config: Config) -> Protocol:
    """How images are predicted: as the section `evaluate` says."""
    section = config.sections.get("evaluate")
    return section if isinstance(section, Protocol) else WHOLE_IMAGE


def images_of(config: Config, role: str) -> pa.Table:
    """Rows of the images of a role.

    Raises:
        DataError: There are none.
    """
    found = read_images(config.manifests, [role])
    if found.num_rows:
        return found
    fix = f"add a source with `role: {role}` whose images are readable"
    raise DataError(f"no {role} image", where=f"{config.path}: ingest.sources", fix=fix)


def labeled_by(config: Config, role: str, labelers: Sequence[str]) -> pa.Table:
    """Rows of the images of a role that every one of these labelers labeled.

    Raises:
        DataError: There are none.
    """
    images = found = images_of(config, role)
    for labeler in labelers:
        found = of_rows(found, labels_of(config, labeler, images))
    if found.num_rows:
        return found
    what = f"no {role} image has labels of {', '.join(labelers)}"
    where = str(config.manifests / tables.PSEUDO_LABELS.name)
    fix = "run `maskmill run pseudolabel`, or see its column error_message"
    raise DataError(what, where=where, fix=fix)


def labels_of(config: Config, labeler: str, images: pa.Table) -> pa.Table:
    """Rows of a labeler's labels of these images."""
    return of_rows(read_labels(config.manifests, labeler), images)


def train_images(config: Config, role: str, labelers: Sequence[str]) -> list[TrainImage]:
    """The images of a role to train on, with their labels; see `labeled_by`."""
    from stages.train.data.crops import StoredLabel, TrainImage

    table = labeled_by(config, role, labelers)
    rows: list[dict[str, Any]] = table.to_pylist()
    labels = {
        labeler: {row["row"]: row for row in labels_of(config, labeler, table).to_pylist()}
        for labeler in labelers
    }
    workspace = config.run.workspace
    return [
        TrainImage(
            uri=row["uri"],
            mask_uri=row["mask_uri"] if row["role"] == "labeled" else None,
            label_scheme=row["label_scheme"],
            image_id=row["image_id"],
            mask_id=row["mask_id"],
            stored={
                labeler: StoredLabel(
                    workspace / own[row["row"]]["store"],
                    row["row"],
                    (own[row["row"]]["height"], own[row["row"]]["width"]),
                )
                for labeler, own in labels.items()
            },
        )
        for row in rows
    ]


def steps_an_epoch(config: Config, variant: VariantConfig) -> int:
    """Full batches of the unlabeled images (OOD or labeled ones without them); at least 1."""
    role = variant.roles[0] if variant.roles else "labeled"
    images = labeled_by(config, role, variant.labelers(role))
    return max(1, int(images.num_rows) // variant.batch_size)


def total_steps(config: Config, variant: VariantConfig) -> int:
    """Length of a variant's trainings in steps."""
    if variant.steps is not None:
        return variant.steps
    assert variant.epochs is not None
    return variant.epochs * steps_an_epoch(config, variant)
