"""The contract of labelers; it finds every file in labelers/ and tests it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as coco
from torch import Tensor

from pipeline.config.components import find, names
from pipeline.config.vocabulary import Vocabulary
from pipeline.errors import ConfigError
from stages.labels.pseudo_labels import PseudoLabels
from stages.propose.output import Proposals
from stages.pseudolabel.labelers._clip_labeler import ClipLabeler
from stages.pseudolabel.labelers.base import ImageBatch, Labeler
from stages.pseudolabel.labelers.ensemble import Ensemble
from stages.pseudolabel.labelers.hf import Hf
from stages.pseudolabel.labelers.sed import Sed
from stages.pseudolabel.labelers.segmenter import Segmenter

FAMILY = "stages.pseudolabel.labelers"
CANVAS = 48
SIZES = ((48, 48), (20, 48), (48, 1), (33, 48))
CLASSES: dict[str, Any] = {
    "cat": ["cat"],
    "dog": ["dog", ["puppy", "whelp"]],
    "background_concepts": ["sky"],
}
MEMBERS = ("first", "second", "third")
MODES: list[tuple[str, dict[str, Any]]] = [
    ("dense_clip", {"variant": "vanilla", "short_side_px": 40}),
    ("dense_clip", {"variant": "sclip", "softmax_over": "concepts", "prob_threshold": 0.4}),
    ("dense_clip", {"variant": "gem", "area_threshold": 0.3}),
    ("dense_clip", {"short_side_px": 40, "resize": "opencv", "long_side_px": 60}),
    ("dense_clip", {"short_side_px": 32, "fit": "square", "resize": "bicubic", "maps": "min-max"}),
    ("sam_clip", {"classify": "crop"}),
    ("sam_clip", {"classify": "features"}),
    ("sam_clip", {"fusion": "paint"}),
    ("ensemble", {"rule": "agreement", "quorum": 2}),
    ("ensemble", {"rule": "confidence"}),
    ("sed", {"mode": "fast", "topk": 1}),
]
"""Modes other than a labeler's default."""
Build = Callable[..., Labeler]


@pytest.fixture(params=names(FAMILY))
def component(request: pytest.FixtureRequest) -> type[Labeler]:
    base: Any = Labeler  # mypy refuses an abstract class as type[Labeler]
    found: type[Labeler] = find(FAMILY, request.param, base)
    return found


@pytest.fixture
def build(
    component: type[Labeler],
    clip_folder: Callable[[str], Path],
    sed_checkpoint: Path,
    segmenter: Callable[[Vocabulary], Path],
    vocabulary: Callable[..., Vocabulary],
    request: pytest.FixtureRequest,
) -> Build:
    """The labeler with a tiny model: ``build(mode={...}, cat=["cat"])``, not loaded."""
    keys: dict[str, Any] = {}
    if issubclass(component, ClipLabeler):
        keys = {"model": f"local-dir:{clip_folder('vit')}", "window_px": 32, "stride_px": 16}
    if component is Sed:
        model = f"local-dir:{sed_checkpoint.parent}"
        keys = {"model": model, "weights": str(sed_checkpoint), "input_px": 64}
    if component is Hf:
        folder = request.getfixturevalue("hf_folder")("clipseg")  # skips without transformers
        keys = {"model": f"local-dir:{folder}"}
    if component is Ensemble:
        keys = {"members": MEMBERS, "rule": "probabilities"}

    def built(mode: dict[str, Any] | None = None, **classes: Any) -> Labeler:
        own = vocabulary(**classes)
        if component is Segmenter:
            keys["weights"] = str(segmenter(own))
        return component(component.Config.model_validate({**keys, **(mode or {})}), own)

    return built


def loaded(labeler: Labeler) -> Labeler:
    labeler.load(torch.device("cpu"))
    return labeler


def batch_of(component: type[Labeler], *sizes: tuple[int, int], classes: int = 2) -> ImageBatch:
    """Noise, with four masks per image and label files for labelers that need them."""
    generator = torch.Generator().manual_seed(1)
    pixels = torch.zeros(len(sizes), 3, CANVAS, CANVAS, dtype=torch.uint8)
    proposals, label_files = [], []
    for image, (height, width) in zip(pixels, sizes, strict=True):
        noise = torch.randint(0, 256, (3, height, width), generator=generator)
        image[:, :height, :width] = noise.to(torch.uint8)
        masks = torch.rand(4, height, width, generator=generator) > 0.6
        quality = torch.rand(2, 4, generator=generator).tolist()
        proposals.append(Proposals((height, width), encoded(masks), *map(tuple, quality)))
        label = torch.randint(0, classes + 1, (height, width), generator=generator)
        label_files.append(label.where(label < classes, 255).to(torch.uint8))
    batch = ImageBatch(
        pixels,
        sizes,
        tuple(proposals) if component.needs_proposals else (),
        tuple(label_files) if component.needs_label_files else (),
    )
    return replace(batch, members=members_of(batch, classes)) if component is Ensemble else batch


def members_of(batch: ImageBatch, classes: int) -> tuple[PseudoLabels, ...]:
    """Stored labels of members for a batch: noise, partly ignore."""
    generator = torch.Generator().manual_seed(2)
    members = []
    for _ in MEMBERS:
        labels = []
        for size in batch.sizes:
            mask = torch.randint(0, classes + 1, size, generator=generator)
            mask = mask.where((mask < classes) & (torch.rand(size, generator=generator) > 0.2), 255)
            confidence = torch.rand(size, generator=generator).where(mask != 255, 0)
            labels.append((mask, confidence))
        members.append(batch.place(labels, torch.device("cpu")))
    return tuple(members)


def encoded(masks: Tensor) -> tuple[str, ...]:
    stacked = np.asfortranarray(masks.permute(1, 2, 0).numpy().astype(np.uint8))
    return tuple(rle["counts"].decode() for rle in coco.encode(stacked))


def alone(batch: ImageBatch, index: int) -> ImageBatch:
    place = slice(index, index + 1)
    return ImageBatch(
        batch.pixels[place],
        batch.sizes[place],
        batch.proposals[place],
        batch.label_files[place],
        tuple(PseudoLabels(own.mask[place], own.confidence[place]) for own in batch.members),
        batch.originals[place],
    )


def check(labels: PseudoLabels, batch: ImageBatch, classes: int) -> None:
    """Shape, type and range, and ignore outside the images."""
    shape = (len(batch.sizes), CANVAS, CANVAS)
    assert labels.mask.shape == labels.confidence.shape == shape
    assert (labels.mask.dtype, labels.confidence.dtype) == (torch.int64, torch.float32)
    assert set(labels.mask.flatten().tolist()) <= {*range(classes), 255}
    assert ((labels.confidence >= 0) & (labels.confidence <= 1)).all()  # NaN is not
    assert (labels.confidence[labels.mask == 255] == 0).all()
    for mask, (height, width) in zip(labels.mask, batch.sizes, strict=True):
        outside = torch.ones(CANVAS, CANVAS, dtype=torch.bool)
        outside[:height, :width] = False
        assert (mask[outside] == 255).all()


def test_four_images_at_once_are_labeled_as_one_by_one(
    component: type[Labeler], build: Build
) -> None:
    holds_for_four(loaded(build(**CLASSES)), batch_of(component, *SIZES))


@pytest.mark.parametrize(("component", "mode"), MODES, indirect=["component"])
def test_batches_do_not_matter_in_any_mode(
    component: type[Labeler], build: Build, mode: dict[str, Any]
) -> None:
    holds_for_four(loaded(build(mode, **CLASSES)), batch_of(component, *SIZES))


def test_images_as_decoded_are_labeled_alike_in_any_batch(
    component: type[Labeler], build: Build
) -> None:
    decoded_holds_for_four(loaded(build(**CLASSES)), batch_of(component, *SIZES))


@pytest.mark.parametrize(("component", "mode"), MODES, indirect=["component"])
def test_images_as_decoded_are_labeled_alike_in_any_mode(
    component: type[Labeler], build: Build, mode: dict[str, Any]
) -> None:
    decoded_holds_for_four(loaded(build(mode, **CLASSES)), batch_of(component, *SIZES))


def decoded_holds_for_four(labeler: Labeler, batch: ImageBatch) -> None:
    """Images of twice the size of their labels change the label of whoever resizes images."""
    originals = tuple(
        batch.fitted(index).repeat_interleave(2, 1).flip(2).repeat_interleave(2, 2)
        for index in range(len(batch.sizes))
    )
    decoded = replace(batch, originals=originals)
    holds_for_four(labeler, decoded)
    found, fitted = labeler.label(decoded), labeler.label(batch)
    assert torch.equal(found.confidence, fitted.confidence) != labeler.resizes


def holds_for_four(labeler: Labeler, batch: ImageBatch) -> None:
    together = labeler.label(batch)
    check(together, batch, classes=2)
    assert (together.mask != 255).any()
    for index in range(len(SIZES)):
        single = labeler.label(alone(batch, index))
        assert torch.equal(together.mask[index], single.mask[0])
        torch.testing.assert_close(
            together.confidence[index], single.confidence[0], atol=1e-5, rtol=0
        )


def test_the_same_again_gives_the_same(component: type[Labeler], build: Build) -> None:
    """Bit by bit, also from a labeler loaded again, and after other batches."""
    labeler, batch = loaded(build(**CLASSES)), batch_of(component, *SIZES)
    first = labeler.label(batch)
    labeler.label(batch_of(component, (7, 48)))
    for again in (labeler.label(batch), loaded(build(**CLASSES)).label(batch)):
        assert torch.equal(first.mask, again.mask)
        assert torch.equal(first.confidence, again.confidence)


@pytest.mark.parametrize("size", [(1, 48), (48, 1), (1, 1)])
def test_a_line_of_pixels_is_labeled(
    component: type[Labeler], build: Build, size: tuple[int, int]
) -> None:
    batch = batch_of(component, size, (48, 48))
    check(loaded(build(**CLASSES)).label(batch), batch, classes=2)


@pytest.mark.parametrize("classes", [1, 200])
def test_any_number_of_classes(component: type[Labeler], build: Build, classes: int) -> None:
    labeler = loaded(build(**{f"class {number}": None for number in range(classes)}))
    batch = batch_of(component, (48, 48), (12, 48), classes=classes)
    labels = labeler.label(batch)
    check(labels, batch, classes)
    assert (labels.mask != 255).any()


def test_a_vocabulary_without_concepts_is_one_line_of_error(
    component: type[Labeler], build: Build
) -> None:
    labeler = build(cat=[], dog=[])
    if "vocabulary.concepts.cat" not in build(**CLASSES).vocabulary_facts():
        loaded(labeler)  # uses no texts, so it needs no concepts
        return
    for ask in (labeler.vocabulary_facts, lambda: loaded(labeler)):
        with pytest.raises(ConfigError) as raised:
            ask()
        assert str(raised.value) == (
            "vocabulary test: no class has a concept to look for; give at least one class a concept"
        )


def test_facts_can_be_had_before_anything_is_loaded(build: Build) -> None:
    labeler = build(**CLASSES)
    assert labeler.vocabulary_facts()["vocabulary.classes"] == ["cat", "dog"]
    assert labeler.weights_facts() == build(**CLASSES).weights_facts()
    assert all("\n" not in line for line in labeler.warnings())


def test_a_cache_folder_changes_nothing(
    component: type[Labeler], build: Build, tmp_path: Path
) -> None:
    batch = batch_of(component, *SIZES)
    plain = loaded(build(**CLASSES)).label(batch)
    for _ in range(2):  # fills the cache, then reads it
        labeler = build(**CLASSES)
        labeler.load(torch.device("cpu"), tmp_path)
        kept = labeler.label(batch)
        assert torch.equal(kept.mask, plain.mask)
        assert torch.equal(kept.confidence, plain.confidence)
