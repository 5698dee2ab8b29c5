"""The labeler `sed`: the labels that it makes from scores."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.config.vocabulary import Vocabulary
from stages.pseudolabel.labelers.base import ImageBatch
from stages.pseudolabel.labelers.sed import Sed, SedConfig
from stages.pseudolabel.sed import network
from stages.pseudolabel.sed.checkpoint import PREFIX, build
from tests.pseudolabel.image_batches import batch_of

CPU = torch.device("cpu")


BuildVocabulary = Callable[..., Vocabulary]


Build = Callable[..., Sed]


@pytest.fixture
def loaded(sed_checkpoint: Path, vocabulary: BuildVocabulary) -> Build:
    """A loaded labeler: ``loaded(vocabulary_keys, mode="fast")``."""

    def build(classes: dict[str, Any], **keys: Any) -> Sed:
        model = f"local-dir:{sed_checkpoint.parent}"
        given = {"model": model, "weights": str(sed_checkpoint), "input_px": 64, **keys}
        labeler = Sed(SedConfig.model_validate(given), vocabulary(**classes))
        labeler.load(CPU)
        return labeler

    return build


def many(count: int) -> dict[str, Any]:
    return {f"class {number}": [f"{number}"] for number in range(count)}


@pytest.mark.parametrize("mode", ["normal", "fast"])
def test_an_image_is_labeled_alike_to_the_last_bit_in_any_batch(loaded: Build, mode: str) -> None:
    labeler = loaded(many(9), mode=mode, topk=1)
    batch = batch_of((64, 64), (20, 64), (64, 1), (33, 64))
    together = labeler.label(batch)
    for index, size in enumerate(batch.sizes):
        alone = labeler.label(ImageBatch(batch.pixels[index : index + 1], (size,)))
        assert torch.equal(together.mask[index], alone.mask[0])
        assert torch.equal(together.confidence[index], alone.confidence[0])


def test_fast_mode_that_rejects_nothing_labels_as_normal_mode(loaded: Build) -> None:
    """`topk` of the number of classes, or more, rejects none."""
    batch = batch_of((64, 64), (20, 64))
    normal = loaded(many(6)).label(batch)
    for topk in (6, 20):
        fast = loaded(many(6), mode="fast", topk=topk).label(batch)
        assert torch.equal(fast.mask, normal.mask)
        assert torch.equal(fast.confidence, normal.confidence)


def test_classes_given_up_win_nothing(loaded: Build) -> None:
    batch = batch_of((64, 64))
    scores = next(loaded(many(9), mode="fast", topk=1).class_scores(batch))
    gone = (scores == 0).flatten(1).all(1)
    assert 0 < gone.sum() < 9
    mask = loaded(many(9), mode="fast", topk=1).label(batch).mask
    assert not gone[torch.unique(mask)].any()


def test_scores_are_resized_before_the_best_concept_counts(loaded: Build) -> None:
    """As in SemiOVS: the maximum over background channels, at the image's resolution."""
    classes = {
        "other": ["wall"],
        "cat": [["cat", "kitten"]],
        "background": "other",
        "background_concepts": ["sky", "sea"],
    }
    labeler = loaded(classes)
    batch = batch_of((40, 64))
    clip = labeler._clip
    templates = [one("{}") for one in open_clip.OPENAI_IMAGENET_TEMPLATES]

    def stack(name: str) -> Tensor:
        prompts = [template.format(name) for template in templates]
        return clip.encode_text(prompts)

    cat = F.normalize(stack("cat") + stack("kitten"), dim=-1)
    texts = torch.stack([stack("wall"), cat, stack("sky"), stack("sea")])
    shown = clip.normalize(network.fitted(batch.pixels[0, :, :40], 64))
    scores = labeler._network(shown, texts)
    assert scores.shape == (4, 16, 16)
    other, cat, sky, sea = F.interpolate(scores[None], (40, 64), mode="bilinear")[0]
    expected = torch.stack([torch.stack([other, sky, sea]).amax(0), cat])
    torch.testing.assert_close(next(labeler.class_scores(batch)), expected)
    labels = labeler.label(batch)
    torch.testing.assert_close(labels.confidence[0, :40], expected.amax(0))
    assert torch.equal(labels.mask[0, :40], expected.argmax(0))


def test_pixels_below_the_threshold_are_ignored(loaded: Build) -> None:
    batch = batch_of((64, 64))
    every = loaded(many(3)).label(batch)
    threshold = float(every.confidence.median())
    kept = loaded(many(3), threshold=threshold).label(batch)
    sure = every.confidence >= threshold
    assert 0 < sure.sum() < sure.numel()
    assert torch.equal(kept.mask, every.mask.where(sure, 255))
    assert torch.equal(kept.confidence, every.confidence.where(sure, 0))


@pytest.mark.slow
def test_a_checkpoint_of_the_full_size_labels(vocabulary: BuildVocabulary, tmp_path: Path) -> None:
    """SED-B as published, with random weights of 0.7 GB, at 768 pixels, in both modes."""
    torch.manual_seed(0)
    weights = tmp_path / "sed_b.pth"
    built = build("convnext_base_w_320")
    named = {f"{PREFIX}{name}": tensor for name, tensor in built.state_dict().items()}
    torch.save({"model": named, "iteration": 79999}, weights)
    del built, named
    batch = batch_of((48, 64))
    for mode in ("normal", "fast"):
        config = SedConfig(model="convnext_base_w_320", weights=str(weights), mode=mode, topk=1)
        labeler = Sed(config, vocabulary(cat=None, dog=None))
        labeler.load(CPU, tmp_path)
        mask = labeler.label(batch).mask[0]
        assert (mask[:48] < 2).all()
        assert (mask[48:] == 255).all()


def test_checking_a_config_takes_no_torch() -> None:
    code = (
        "import sys\n"
        "from pipeline.config.vocabulary import Vocabulary\n"
        "from stages.pseudolabel.labelers.sed import Sed\n"
        "keys = {'model': 'convnext_base_w_320', 'weights': 'sed.pth'}\n"
        "classes = [{'name': 'cat', 'color': '#000000'}]\n"
        "labeler = Sed(Sed.Config(**keys), Vocabulary(name='a', classes=classes))\n"
        "assert labeler.vocabulary_facts() and labeler.warnings() == []\n"
        "assert not {'torch', 'open_clip', 'timm'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
