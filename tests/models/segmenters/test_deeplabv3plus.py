from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pipeline.config.class_entry import ClassEntry
from pipeline.config.vocabulary import Vocabulary
from stages.models.segmenters.builders.base import ModelBuilder
from stages.models.segmenters.networks.base import SegmentationNetwork

BuildModel = Callable[..., ModelBuilder]
PUBLISHED = {"tu-resnet50s.gluon_in1k": 40.5, "tu-resnet101s.gluon_in1k": 59.5}


PLAIN = {"resnet50": 40.4, "resnet101": 59.3}
"""Without the published stem of three convolutions."""


def of_classes(count: int) -> Vocabulary:
    classes = tuple(ClassEntry(name=f"class {k}", color="#000000") for k in range(count))
    return Vocabulary(name="test", classes=classes)


def on_meta(model: ModelBuilder, num_classes: int) -> SegmentationNetwork:
    with torch.device("meta"):
        return model.build(of_classes(num_classes))


def millions(network: nn.Module) -> float:
    return round(sum(p.numel() for p in network.parameters()) / 1e6, 1)


@pytest.mark.parametrize("encoder", PUBLISHED)
def test_it_is_as_large_as_the_published_one(encoder: str, model: BuildModel) -> None:
    network = on_meta(model("deeplabv3plus", encoder=encoder, encoder_weights=None), 21)
    assert millions(network) == PUBLISHED[encoder]
    layer4 = network.encoder.get_submodule("model.layer4")
    spatial = [m for m in layer4.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert [conv.dilation for conv in spatial] == [(1, 1), (2, 2), (2, 2)]
    assert {conv.stride for conv in spatial} == {(1, 1)}
    stem = network.encoder.get_submodule("model.conv1").children()
    convs = [part for part in stem if isinstance(part, nn.Conv2d)]
    assert [conv.out_channels for conv in convs] == [64, 64, 128]


@pytest.mark.parametrize("encoder", PLAIN)
def test_plain_stems_are_a_little_smaller(encoder: str, model: BuildModel) -> None:
    network = on_meta(model("deeplabv3plus", encoder=encoder, encoder_weights=None), 21)
    assert millions(network) == PLAIN[encoder]


def test_xception_has_the_published_size_stride_and_momentum(model: BuildModel) -> None:
    keys = {"encoder": "tu-xception65", "encoder_weights": None, "batchnorm_momentum": 3e-4}
    network = on_meta(model("deeplabv3plus", **keys), 81)
    assert millions(network) == 54.7
    fine, deep = network.encode(torch.empty(1, 3, 513, 513, device="meta"))
    assert (fine.shape[1:], deep.shape[1:]) == ((256, 129, 129), (2048, 33, 33))
    norms = [m for m in network.encoder.modules() if isinstance(m, nn.BatchNorm2d)]
    assert {norm.momentum for norm in norms} == {3e-4}


def test_it_reads_strides_4_and_16_and_has_no_dropout_of_its_own(
    model: BuildModel, classes: Vocabulary, images: Callable[..., Tensor]
) -> None:
    network = model("deeplabv3plus", encoder="resnet18", encoder_weights=None).build(classes)
    fine, deep = network.encode(images(1, 321, 321))
    assert (fine.shape[-1], deep.shape[-1]) == (81, 21)
    dropouts = [m for m in network.modules() if isinstance(m, nn.Dropout)]
    assert all(dropout.p == 0 for dropout in dropouts)
