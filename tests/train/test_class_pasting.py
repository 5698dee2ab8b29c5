"""ClassMix and SupMix: what is pasted, and which labels it brings."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from pipeline.config.vocabulary import Vocabulary
from pipeline.errors import ConfigError
from stages.labels.pseudo_labels import PseudoLabels
from stages.models.segmenters.normalization import normalize
from stages.train.data.batch import TrainBatch
from stages.train.step.pasting import half_of_the_classes
from stages.train.step.perturbations.classmix import ClassMix, ClassMixConfig
from stages.train.step.perturbations.supmix import SupMix, SupMixConfig
from stages.train.step.strong_views import View

RandomBatch = Callable[..., TrainBatch]


def labels_of(batch: TrainBatch) -> dict[str, PseudoLabels]:
    return {"ema": batch.crops["unlabeled"].stored["clip"]}


def mixed(perturbation: ClassMix | SupMix, batch: TrainBatch) -> View:
    (view,) = perturbation.views(batch, "unlabeled", labels_of(batch), {})
    return view


def test_classmix_shows_half_of_an_images_classes_before_the_next_image(
    random_batch: RandomBatch, vocabulary: Vocabulary
) -> None:
    batch = random_batch(["unlabeled"])
    view = mixed(ClassMix(ClassMixConfig(), vocabulary), batch)
    labels, crops = labels_of(batch)["ema"], batch.crops["unlabeled"]
    chosen = half_of_the_classes(labels.mask, batch.random, "classes of unlabeled")
    assert chosen.any()
    weak = crops.weak
    expected = torch.where(chosen[:, None], weak, weak.roll(-1, dims=0))
    torch.testing.assert_close(view.images, expected)
    assert torch.equal(view.valid, torch.where(chosen, crops.valid, crops.valid.roll(-1, dims=0)))
    mask = torch.where(chosen, labels.mask, labels.mask.roll(-1, dims=0))
    assert torch.equal(view.labels["ema"].mask, mask)


def test_classmix_recolors_where_it_is_reported_to(
    random_batch: RandomBatch, vocabulary: Vocabulary
) -> None:
    batch = random_batch(["unlabeled"])
    plain = mixed(ClassMix(ClassMixConfig(), vocabulary), batch).images
    colored = mixed(ClassMix(ClassMixConfig(recolor=True), vocabulary), batch).images
    assert not torch.equal(plain, colored)


@pytest.mark.parametrize("classes", [(), ("cat",), ("ground", "cat", "dog")])
def test_supmix_pastes_true_labels_of_the_classes_asked_for_and_never_void(
    classes: tuple[str, ...], random_batch: RandomBatch, vocabulary: Vocabulary
) -> None:
    batch = random_batch(["unlabeled"])
    view = mixed(SupMix(SupMixConfig(classes=classes), vocabulary), batch)
    truth, own = batch.labeled.mask, labels_of(batch)["ema"]
    ids = [vocabulary.class_names.index(name) for name in classes]
    pasted = torch.isin(truth, torch.tensor(ids, dtype=truth.dtype))
    assert torch.equal(view.labels["ema"].mask, torch.where(pasted, truth, own.mask))
    ones = torch.ones_like(own.confidence)
    assert torch.equal(view.labels["ema"].confidence, torch.where(pasted, ones, own.confidence))
    assert torch.equal(view.valid, batch.crops["unlabeled"].valid | pasted)
    assert (truth == 255).any()


@pytest.mark.parametrize(("classes", "shown"), [((), "unlabeled"), (("ground", "cat", "dog"), "")])
def test_supmix_of_no_class_is_the_crop_itself_and_of_all_the_labeled_one(
    classes: tuple[str, ...], shown: str, random_batch: RandomBatch, vocabulary: Vocabulary
) -> None:
    batch = random_batch(["unlabeled"])
    batch.labeled.mask.fill_(1)
    pixels = batch.crops["unlabeled"].pixels if shown else batch.labeled.pixels
    other = replace(batch.crops["unlabeled"], pixels=pixels.clone())
    labeled = replace(batch.labeled, pixels=pixels.clone())
    same = replace(batch, crops={"unlabeled": other}, labeled=labeled)
    own = SupMix(SupMixConfig(classes=classes), vocabulary)
    torch.testing.assert_close(mixed(own, batch).images, mixed(own, same).images)
    assert not torch.equal(mixed(own, batch).images, normalize(pixels))


def test_supmix_knows_its_classes_by_name(vocabulary: Vocabulary) -> None:
    with pytest.raises(ConfigError, match="no class 'cow'; use some of: ground, cat, dog"):
        SupMix(SupMixConfig(classes=("cow",)), vocabulary)


def test_supmix_without_classes_pastes_half_of_each_images(
    random_batch: RandomBatch, vocabulary: Vocabulary
) -> None:
    batch = random_batch(["unlabeled"])
    view = mixed(SupMix(SupMixConfig(), vocabulary), batch)
    own = labels_of(batch)["ema"]
    found_each = view.labels["ema"].confidence
    for truth, found, before in zip(batch.labeled.mask, found_each, own.confidence, strict=True):
        is_pasted = (found == 1) & (before < 1)
        assert len(truth[is_pasted].unique()) == 1
