"""Encoders see images as those of their pretraining were normalized."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch.nn.functional import conv2d

from pipeline.config.vocabulary import Vocabulary
from stages.models.segmenters.builders import _encoder
from stages.models.segmenters.builders.base import ModelBuilder
from stages.models.segmenters.encoders import pretrained_normalization
from stages.models.segmenters.model_file import load_model_file, save_model_file
from stages.models.segmenters.normalization import IMAGENET, Normalization, normalize, renormalized
from tests.models.segmenters.conftest import describe

HALF = Normalization((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
XCEPTION = "tu-xception65.ra3_in1k"
Model = Callable[..., ModelBuilder]


def test_statistics_are_those_of_the_weights() -> None:
    assert pretrained_normalization("tu-xception65", "imagenet") == HALF
    assert pretrained_normalization(XCEPTION, "/a/file.pth") == HALF
    assert pretrained_normalization("vit_base_patch14_dinov2.lvd142m", "pretrained") == IMAGENET
    assert pretrained_normalization("vit_base_patch16_224.augreg_in21k", "pretrained") == HALF
    assert pretrained_normalization("inceptionresnetv2", "imagenet+background") == HALF
    assert pretrained_normalization("inceptionv4", "/a/file.pth") == HALF
    assert pretrained_normalization("efficientnet-b3", "advprop") == HALF
    assert pretrained_normalization("efficientnet-b3", "imagenet") == IMAGENET
    assert pretrained_normalization("timm-efficientnet-b8", "/a/file.pth") == IMAGENET
    assert pretrained_normalization("timm-tf_efficientnet_lite0", "imagenet") == HALF
    dpn = pretrained_normalization("dpn68b", "imagenet+5k")
    assert dpn.mean == pytest.approx((0.48627451, 0.45882353, 0.40784314))
    assert dpn.std == pytest.approx((0.23482447,) * 3)
    assert pretrained_normalization("resnet101", "imagenet") == IMAGENET
    assert pretrained_normalization(XCEPTION, None) == IMAGENET  # nothing was learned yet


def test_renormalized_images_are_those_of_the_other_statistics() -> None:
    images = torch.rand(2, 3, 5, 4)
    torch.testing.assert_close(renormalized(normalize(images), HALF), (images - 0.5) / 0.5)
    assert renormalized(images, IMAGENET) is images


@pytest.fixture
def random_weights(tmp_path: Path) -> Path:
    """A file of random weights of an encoder whose images are normalized by one half."""
    torch.manual_seed(0)
    path = tmp_path / "xception.pth"
    torch.save(timm.create_model("xception65", num_classes=0).state_dict(), path)
    return path


def test_the_encoder_sees_its_own_normalization_and_a_model_file_keeps_it(
    model: Model, classes: Vocabulary, random_weights: Path, tmp_path: Path
) -> None:
    builder = model("deeplabv3plus", encoder=XCEPTION, encoder_weights=str(random_weights))
    network = builder.build(classes).eval()
    images, seen = torch.rand(1, 3, 33, 33), []
    first = next(each for each in network.encoder.modules() if isinstance(each, torch.nn.Conv2d))
    first.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        network(normalize(images))
    torch.testing.assert_close(seen[0], (images - 0.5) / 0.5)
    assert conv2d(seen[0], first.weight, stride=first.stride).shape[1] == first.out_channels
    path = tmp_path / "model.safetensors"
    save_model_file(path, network.state_dict(), describe(builder, classes))
    again = load_model_file(path, torch.device("cpu"))
    assert again.network.normalization == HALF
    pixels = (images[0] * 255).to(torch.uint8)
    with torch.no_grad():
        expected = network(normalize(pixels[None].float() / 255)).softmax(dim=1)[0]
    torch.testing.assert_close(again.probabilities(pixels), expected)


def test_trainings_of_encoders_that_are_normalized_otherwise_now_are_stale() -> None:
    """The fact may be missing only where the statistics were right before."""
    names: list[Any] = timm.list_models(pretrained=True)
    known = [name for name in names if _encoder._OF_IMAGENET.fullmatch(f"tu-{name}")]
    known += [name for name in names if _encoder._OF_IMAGENET.fullmatch(name)]
    assert len(known) > 10
    assert {pretrained_normalization(name, "pretrained") for name in known} == {IMAGENET}


@pytest.mark.parametrize(
    ("encoder", "is_new"), [("tu-resnet101s.gluon_in1k", False), (XCEPTION, True)]
)
def test_the_fact_is_new_only_where_it_must_be(encoder: str, is_new: bool, model: Model) -> None:
    facts = model("deeplabv3plus", encoder=encoder).weights_facts()
    assert ("normalization" in facts) == is_new
