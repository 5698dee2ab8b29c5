"""What every network does, small: the files in models/ name them."""

import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pipeline.config.components import Choice
from pipeline.config.vocabulary import Vocabulary
from stages.models.segmenters.builders.base import ModelBuilder
from stages.models.segmenters.description import ModelDescription
from stages.models.segmenters.model_file import load_model_file, save_model_file
from stages.models.segmenters.networks.base import SegmentationNetwork
from stages.models.segmenters.protocol import WHOLE_IMAGE

Draw = Callable[..., Tensor]
NUM_CLASSES = 5


@pytest.fixture
def network(tiny_model: ModelBuilder, classes: Vocabulary) -> SegmentationNetwork:
    torch.manual_seed(0)
    return tiny_model.build(classes)


@pytest.mark.parametrize("size", [(33, 50), (64, 64), (81, 17), (1, 40)])
def test_logits_have_the_size_of_the_images(
    network: SegmentationNetwork, images: Draw, size: tuple[int, int]
) -> None:
    assert network(images(2, *size)).shape == (2, NUM_CLASSES, *size)


def test_parts_compose_to_the_whole(network: SegmentationNetwork, images: Draw) -> None:
    network.eval()
    features = network.encode(images())
    areas = [feature.shape[-2] * feature.shape[-1] for feature in features]
    assert areas == sorted(areas, reverse=True)
    assert all(feature.ndim == 4 and len(feature) == 2 for feature in features)
    maps = network.fuse(features)
    assert (maps.ndim, len(maps)) == (4, 2)
    logits = network(images())
    torch.testing.assert_close(network.classify(maps, (33, 50)), logits)
    torch.testing.assert_close(network.decode(features, (33, 50)), logits)


def test_an_image_alone_is_classified_as_in_a_batch(
    network: SegmentationNetwork, images: Draw
) -> None:
    network.eval()
    both = network(images())
    assert torch.equal(network(images()), both)
    for alone, together in zip(images(), both, strict=True):
        torch.testing.assert_close(network(alone[None])[0], together, atol=1e-4, rtol=1e-4)


def test_a_compiled_network_is_the_same_by_the_same_names_and_its_copies_are_plain(
    network: SegmentationNetwork, images: Draw
) -> None:
    """Without the compiler proper, which takes minutes: what torch captures is run as it is."""
    with torch.no_grad():
        names, expected = list(network.state_dict()), network.eval()(images())
        network.compile(backend="eager")
        assert list(network.state_dict()) == names
        torch.testing.assert_close(network(images()), expected, atol=1e-4, rtol=1e-4)
        copy = deepcopy(network)
        [*copy.parameters()][-1].add_(1)
        assert not torch.allclose(copy(images()), expected)
        torch.testing.assert_close(network(images()), expected, atol=1e-4, rtol=1e-4)


def test_every_trainable_parameter_learns_and_is_in_one_group(
    network: SegmentationNetwork, images: Draw
) -> None:
    encoder, decoder = list(network.encoder.parameters()), list(network.decoder_parameters())
    assert len(encoder) + len(decoder) == len(list(network.parameters()))
    network.train()(images(2, 64, 64)).square().mean().backward()
    trainable = {name: p for name, p in network.named_parameters() if p.requires_grad}
    assert [n for n, p in trainable.items() if p.grad is None or not p.grad.isfinite().all()] == []
    frozen = [p for p in network.parameters() if not p.requires_grad]
    assert all(p.grad is None for p in frozen)
    decays = (1.0, 0.8) if network.encoder_blocks() else (1.0,)
    for decay in decays:
        groups = network.parameter_groups(layer_decay=decay, decay_encoder_norms=False)
        found = [id(parameter) for group in groups for parameter in group["params"]]
        assert sorted(found) == sorted(id(p) for p in trainable.values())


def test_a_frozen_encoder_stays_and_the_decoder_learns(
    network: SegmentationNetwork, images: Draw
) -> None:
    network.freeze_encoder()
    before = {name: tensor.clone() for name, tensor in network.encoder.state_dict().items()}
    groups = [{"params": group["params"]} for group in network.parameter_groups()]
    optimizer = torch.optim.SGD(groups, 0.1)
    network.train()(images()).square().mean().backward()
    optimizer.step()
    assert all(torch.equal(before[name], t) for name, t in network.encoder.state_dict().items())
    assert any(p.grad is not None for p in network.decoder_parameters())
    assert len(network.parameter_groups()) == 1


def test_a_few_steps_teach_where_the_bright_half_is(
    network: SegmentationNetwork, images: Draw
) -> None:
    pixels = 0.1 * images(4, 32, 32)
    pixels[:2, :, :, :16] += 1
    pixels[2:, :, 16:] += 1
    mask = (pixels.mean(dim=1) > 0.5).long()
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    right = 0.0
    for _ in range(80):
        logits = network.train()(pixels)
        right = (logits.argmax(dim=1) == mask).float().mean().item()
        if right > 0.8:
            break
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(logits, mask)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert right > 0.8


def test_what_is_saved_predicts_the_same(
    tiny_model: ModelBuilder,
    network: SegmentationNetwork,
    classes: Vocabulary,
    images: Draw,
    tmp_path: Path,
) -> None:
    network.train()(images())  # so that running statistics are their own
    network.eval()
    path = tmp_path / "model.safetensors"
    choice = Choice(tiny_model.file_name(), type(tiny_model), tiny_model.config)
    description = ModelDescription.of_training(choice, classes, WHOLE_IMAGE, {})
    save_model_file(path, network.state_dict(), description)
    predictor = load_model_file(path, torch.device("cpu"), vocabulary=classes)
    loaded = predictor.network.state_dict()
    assert loaded.keys() == network.state_dict().keys()
    with torch.inference_mode():
        torch.testing.assert_close(predictor.network(images()), network(images()))


def test_checking_configs_and_weights_needs_no_torch() -> None:
    program = """
import sys
from pipeline.config import components
from stages.models.segmenters.builders.base import ModelBuilder
for name in components.names("stages.models.segmenters.builders"):
    model = components.find("stages.models.segmenters.builders", name, ModelBuilder)
    model(model.Config()).weights_facts()
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
