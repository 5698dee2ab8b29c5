"""The images and labels that trainings read, from the manifests, and the lengths that follow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING

import pyarrow as pa

from pipeline.config.config import Config
from pipeline.errors import DataError
from pipeline.records import tables
from pipeline.records.sharded_table import digest_rows
from stages.ingest.output import no_image, read_images
from stages.pseudolabel.output import of_rows, read_labels
from stages.train.config import VariantConfig

if TYPE_CHECKING:
    from pipeline.records.rows import ImageRow, LabelRow
    from stages.train.data.crops import TrainImage

_ByRole = Callable[[str], pa.Table]
_ByLabeler = Callable[[str, str], pa.Table]


class TrainInputs:
    """The images and labels of a run by role and labeler, each read once.

    Args:
        config: The run; its manifests must not change while this is in use.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        # Caches of functions, not of methods: large tables must be freed with the last reference.
        self.images = images = cache(partial(_read_images, config))
        """Rows of the images of a role."""
        self.labels = labels = cache(partial(_read_labels, config, images))
        """Rows of a labeler's labels of the images of a role."""
        self.images_digest = cache(partial(_images_digest, images))
        """A digest of these columns of a role's images."""
        self.labels_digest = cache(partial(_labels_digest, labels))
        """A digest of a labeler's labels of a role's images."""
        self._labeled_by = cache(partial(_read_labeled_by, config, images, labels))

    def labeled_by(self, role: str, labelers: Sequence[str]) -> pa.Table:
        """Rows of the images of a role that have a label of every one of these labelers.

        Raises:
            DataError: There are none.
        """
        return self._labeled_by(role, tuple(labelers))

    def train_images(self, role: str, labelers: Sequence[str]) -> list[TrainImage]:
        """The images of a role to train on, with their labels; see `labeled_by`."""
        from pipeline.records.label_reader import StoredLabel
        from stages.train.data.crops import TrainImage

        rows: list[ImageRow] = self.labeled_by(role, labelers).to_pylist()
        labels: dict[str, dict[int, LabelRow]] = {
            labeler: {row["row"]: row for row in self.labels(role, labeler).to_pylist()}
            for labeler in labelers
        }
        workspace = self._config.run.workspace

        return [
            TrainImage(
                uri=row["uri"],
                mask_uri=row["mask_uri"] if row["role"] == "labeled" else None,
                label_scheme=row["label_scheme"],
                image_id=row["image_id"],
                mask_id=row["mask_id"],
                stored={
                    labeler: StoredLabel.of(workspace, own[row["row"]])
                    for labeler, own in labels.items()
                },
            )
            for row in rows
        ]

    def steps_an_epoch(self, variant: VariantConfig) -> int:
        """Full batches of the unlabeled images (OOD or labeled ones without them); at least 1."""
        role = variant.roles[0] if variant.roles else "labeled"
        images = self.labeled_by(role, variant.labelers(role))
        return max(1, int(images.num_rows) // variant.batch_size)

    def total_steps(self, variant: VariantConfig) -> int:
        """Length of a variant's trainings in steps."""
        if variant.steps is not None:
            return variant.steps
        assert variant.epochs is not None
        return variant.epochs * self.steps_an_epoch(variant)


def _read_images(config: Config, role: str) -> pa.Table:
    found = read_images(config.manifests, [role])
    if found.num_rows:
        return found
    raise no_image(config, role)


def _read_labels(config: Config, images: _ByRole, role: str, labeler: str) -> pa.Table:
    return read_labels(config.manifests, labeler, images(role))


def _images_digest(images: _ByRole, role: str, columns: tuple[str, ...]) -> str:
    return digest_rows(images(role).select(list(columns)))


def _labels_digest(labels: _ByLabeler, role: str, labeler: str) -> str:
    return digest_rows(labels(role, labeler).select(["row", "fingerprint"]))


def _read_labeled_by(
    config: Config, images: _ByRole, labels: _ByLabeler, role: str, labelers: tuple[str, ...]
) -> pa.Table:
    found = images(role)
    for labeler in labelers:
        labeled = labels(role, labeler)
        if not labeled["row"].equals(found["row"]):  # else a filter would only copy the table
            found = of_rows(found, labeled)
    if found.num_rows:
        return found
    what = f"no {role} image has labels of {', '.join(labelers)}"
    where = str(config.manifests / tables.PSEUDO_LABELS.name)
    fix = "run `maskmill run pseudolabel`, or see its column error_message"
    raise DataError(what, where=where, fix=fix)
