from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from pipeline.config.vocabulary import Vocabulary
from stages.models.segmenters.builders.base import ModelBuilder
from stages.models.segmenters.networks.base import SegmentationNetwork
from stages.models.segmenters.networks.dpt import DPT

BuildModel = Callable[..., ModelBuilder]
Draw = Callable[..., Tensor]
UNUSED = 2 * (128 * 128 * 9 + 128)
"""The published deepest fusion has a unit for a finer level that it is never given."""


def size_of(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def on_meta(model: ModelBuilder, classes: Vocabulary) -> SegmentationNetwork:
    with torch.device("meta"):
        return model.build(classes)


def test_it_is_as_large_as_the_published_one(model: BuildModel, classes: Vocabulary) -> None:
    network = on_meta(model("dpt", encoder_weights=None), classes)
    encoder, decoder = size_of(network.encoder), size_of(network) - size_of(network.encoder)
    more_classes = 16 * (128 + 1)  # of VOC's 21
    total = encoder + decoder + UNUSED + more_classes
    assert (encoder, total) == (86_579_712, 97_528_021)
    assert round(total / 1e6, 1) == 97.5


@pytest.mark.parametrize(
    ("name", "taps", "widths"),
    [
        ("vit_small_patch14_dinov2", (2, 5, 8, 11), (48, 96, 192, 384)),
        ("vit_base_patch14_dinov2", (2, 5, 8, 11), (96, 192, 384, 768)),
        ("vit_large_patch14_dinov2", (4, 11, 17, 23), (256, 512, 1024, 1024)),
        ("vit_giant_patch14_dinov2", (9, 19, 29, 39), (1536, 1536, 1536, 1536)),
        ("vit_base_patch16_dinov3", (2, 5, 8, 11), (96, 192, 384, 768)),
    ],
)
def test_taps_and_widths_are_those_of_the_encoders_size(
    name: str,
    taps: tuple[int, ...],
    widths: tuple[int, ...],
    model: BuildModel,
    classes: Vocabulary,
) -> None:
    network = on_meta(model("dpt", encoder=name, encoder_weights=None), classes)
    assert isinstance(network, DPT)
    assert network._taps == taps
    assert tuple(p.out_channels for p in network.projections) == widths
    features = {"small": 64, "base": 128, "large": 256, "giant": 384}[name.split("_")[1]]
    assert network.classifier.in_channels == features


def dinov2() -> DPT:
    """A small one with DINOv2's layer scales, for images of 160 px."""
    torch.manual_seed(0)
    options: dict[str, Any] = {"num_classes": 0, "dynamic_img_size": True, "init_values": 0.5}
    vit: Any = timm.create_model("test_vit", **options)
    torch.nn.init.normal_(vit.pos_embed)
    return DPT(5, vit).eval()


def test_features_are_normed_patches_of_the_last_block_of_each_quarter(images: Draw) -> None:
    network = dinov2()
    pixels = images(2, 160, 160)
    found = network.encode(pixels)
    expected = network.encoder.forward_intermediates(
        pixels, indices=[0, 2, 3, 5], norm=True, intermediates_only=True
    )
    for own, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(own, theirs)
    normed = found[-1].movedim(1, -1)
    torch.testing.assert_close(normed.mean(-1), torch.zeros(2, 10, 10), atol=1e-5, rtol=0)


def test_positions_are_resized_with_dinos_offset(images: Draw) -> None:
    """With all else zeroed, the tokens are the positions."""
    network = dinov2()
    vit = network.encoder
    for part in (vit.patch_embed.proj.weight, vit.patch_embed.proj.bias, vit.cls_token):
        torch.nn.init.zeros_(part)
    for block in vit.blocks:
        block.ls1.gamma.data.zero_()
        block.ls2.gamma.data.zero_()
    learned = vit.pos_embed[:, 1:].transpose(1, 2).unflatten(2, (10, 10))
    for rows, columns in ((4, 7), (13, 10)):
        found = network.encode(images(1, 16 * rows, 16 * columns))[0]
        scale = ((rows + 0.1) / 10, (columns + 0.1) / 10)
        positions = interpolate(learned, scale_factor=scale, mode="bicubic")
        plain = interpolate(learned, (rows, columns), mode="bicubic")
        expected = vit.norm(positions.movedim(1, -1)).movedim(-1, 1)
        torch.testing.assert_close(found, expected)
        assert (found - vit.norm(plain.movedim(1, -1)).movedim(-1, 1)).abs().max() > 1e-3


def test_other_sizes_are_resized_to_patches_and_logits_back(images: Draw) -> None:
    network = dinov2()
    pixels = images(1, 33, 56)  # two patches and a bit; three and a half
    inner = interpolate(pixels, (32, 64), mode="bilinear", align_corners=True)
    expected = interpolate(network(inner), (33, 56), mode="bilinear", align_corners=True)
    torch.testing.assert_close(network(pixels), expected)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_dinov3_qkvb", "test_vit4"])
def test_registers_and_rotary_positions_are_timms_own(
    name: str, model: BuildModel, classes: Vocabulary, images: Draw
) -> None:
    network = model("dpt", encoder=name, encoder_weights=None).build(classes).eval()
    features = network.encode(images(1, 48, 33))
    assert {tuple(f.shape[-2:]) for f in features} == {(3, 2)}
    assert network(images(1, 48, 33)).shape == (1, 5, 48, 33)
