"""Images to train on, as stage one leaves them: label files, and labels in a store."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.config.vocabulary import Vocabulary
from pipeline.errors import ConfigError
from pipeline.images import images
from pipeline.records.label_reader import StoredLabel
from pipeline.records.label_store import CONFIDENCE_STRIDE, LabelStore
from stages.sandbox.world.encoding import encoded_image
from stages.sandbox.world.world import render
from stages.train.data.crops import TrainImage

Bytes = npt.NDArray[np.uint8]
Roles = dict[str, list[TrainImage]]

_SEED = 3_000_000  # of scenes that nothing was chosen on
_SHARD = 64


def train_images(
    place: Path, count: int, folder: Path | None, size_px: int, labeler: str, vocabulary: Vocabulary
) -> Roles:
    """A third of the images labeled, a third unlabeled, a third OOD with stored labels.

    Every image has a label file, for the published loaders read one of each.

    Args:
        place: Where to write.
        count: Number of images, at least 3.
        folder: Holds `images` and `masks` of equal stems; None: scenes of the sandbox are drawn.
        size_px: Long side of stored labels.
        labeler: Name of who stored them.
        vocabulary: The classes; ids of other classes are taken for some of these.

    Raises:
        ConfigError: The folder has too few images with masks.
    """
    sides = _drawn(place, count) if folder is None else _photos(folder, count)
    roles: Roles = {"labeled": [], "unlabeled": [], "ood": []}
    masks = []
    for number, (path, ids) in enumerate(sides):
        mask = np.where(ids == 255, 255, ids % vocabulary.num_classes).astype(np.uint8)
        mask_path = place / f"mask {number:05d}.png"
        Image.fromarray(mask).save(mask_path)
        role = [*roles][number % len(roles)]
        image_id, mask_id = (images.content_id(p.read_bytes()) for p in (path, mask_path))
        image = TrainImage(str(path), str(mask_path), image_id=image_id, mask_id=mask_id)
        roles[role].append(image)
        if role == "ood":
            masks.append(mask)
    stored = _stored(place / "labels.zarr" / "benchmark", masks, size_px)
    roles["ood"] = [
        replace(image, stored={labeler: label})
        for image, label in zip(roles["ood"], stored, strict=True)
    ]
    return roles


def without_masks(roles: Roles) -> Roles:
    """The images as our loader reads them: label files only of labeled images."""
    return {
        role: own if role == "labeled" else [replace(image, mask_uri=None) for image in own]
        for role, own in roles.items()
    }


def _drawn(place: Path, count: int) -> Iterator[tuple[Path, Bytes]]:
    for number in range(count):
        scene = render("web" if number % 3 == 2 else "id", _SEED, number)
        path = place / f"{number:05d}.jpg"
        path.write_bytes(encoded_image(scene, ".jpg"))
        yield path, scene.classes


def _photos(folder: Path, count: int) -> Iterator[tuple[Path, Bytes]]:
    masks = {path.stem: path for path in (folder / "masks").glob("*.png")}
    # By a hash, for neighbours of a list are alike.
    found = sorted(
        (path for path in (folder / "images").glob("*") if path.stem in masks),
        key=lambda path: hashlib.sha256(path.name.encode()).digest(),
    )
    if len(found) < count:
        what = f"{len(found)} images with masks, not {count}"
        raise ConfigError(what, where=str(folder), fix="lower --images")
    for path in found[:count]:
        yield path, np.asarray(Image.open(masks[path.stem]))


def _stored(group: Path, masks: list[Bytes], size_px: int) -> list[StoredLabel]:
    """Writes masks to a store, scaled to fit, every pixel certain."""
    store = LabelStore(group, _SHARD, size_px)
    store.grow(-(-len(masks) // _SHARD))
    labels: list[StoredLabel] = []
    for first in range(0, len(masks), _SHARD):
        some = masks[first : first + _SHARD]
        values = np.full((len(some), size_px, size_px), 255, np.uint8)
        cells = size_px // CONFIDENCE_STRIDE
        confidences = np.full((len(some), cells, cells), 255, np.uint8)
        for own, mask in zip(values, some, strict=True):
            height, width = images.fitted_size(mask.shape[0], mask.shape[1], size_px)
            scaled = Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST)
            own[:height, :width] = np.asarray(scaled)
            labels.append(StoredLabel(group, len(labels), (height, width)))
        rows = [*range(first, first + len(some))]
        store.write(first // _SHARD, rows, values, confidences)
    return labels
