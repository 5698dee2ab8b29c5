"""SED's network compared step by step with the published description."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.errors import ConfigError
from stages.pseudolabel.sed.checkpoint import build, load_sed
from stages.pseudolabel.sed.class_attention import ClassAttention, linear_attention
from stages.pseudolabel.sed.decoder import GradualFusionDecoder, cost_volume, survivors
from stages.pseudolabel.sed.fusion import FusionBlock
from stages.pseudolabel.sed.network import fitted, resized_size

CPU = torch.device("cpu")


def test_an_image_side_without_stages_is_refused() -> None:
    with torch.device("meta"), pytest.raises(ConfigError) as raised:
        build("ViT-B-32")
    assert str(raised.value) == (
        "model: SED needs a ConvNeXt image encoder; "
        "use convnext_large_d_320 (SED-L) or convnext_base_w_320 (SED-B)"
    )


def test_attention_that_distinguishes_nothing_is_the_mean() -> None:
    """Q = K = 0."""
    values = torch.randn(3, 7, 4, 5)
    zeros = torch.zeros(3, 7, 4, 5)
    mean = values.mean(1, keepdim=True).expand_as(values)
    torch.testing.assert_close(linear_attention(zeros, zeros, values), mean)


def test_linear_attention_is_a_weighted_mean() -> None:
    torch.manual_seed(0)
    queries, keys, values = torch.randn(3, 2, 6, 4, 5)
    found = linear_attention(queries, keys, values)
    phi_q, phi_k = F.elu(queries) + 1, F.elu(keys) + 1
    weights = torch.einsum("nlhd,nshd->nhls", phi_q, phi_k)
    weights = weights / weights.sum(-1, keepdim=True)
    torch.testing.assert_close(found, torch.einsum("nhls,nshd->nlhd", weights, values))


def test_the_cost_volume_holds_cosines() -> None:
    image = torch.tensor([[[3.0, 0.0]], [[4.0, 2.0]]])  # (2, 1, 2)
    texts = torch.tensor([[[5.0, 0.0], [0.0, 0.1]]])  # one class in two templates
    expected = torch.tensor([[[[0.6, 0.0]], [[0.8, 1.0]]]])
    torch.testing.assert_close(cost_volume(image, texts), expected)


def test_classes_that_are_the_best_of_no_pixel_are_rejected() -> None:
    logits = torch.tensor([[3.0, 0.0], [2.0, 9.0], [1.0, 8.0], [0.0, 7.0]]).view(4, 1, 1, 2)
    assert survivors(logits, 1).tolist() == [0, 1]
    assert survivors(logits, 2).tolist() == [0, 1, 2]
    for many in (4, 8):
        assert survivors(logits, many).tolist() == [0, 1, 2, 3]


@pytest.fixture
def decoder() -> GradualFusionDecoder:
    """One whose every parameter is random, on an image side of 6, 5 and 4 channels."""
    torch.manual_seed(2)
    network = GradualFusionDecoder((6, 5, 4))
    for parameter in network.parameters():
        parameter.requires_grad_(False).uniform_(-0.3, 0.3)
    return network


def scene(texts: int, side: int = 3) -> tuple[Tensor, list[Tensor], Tensor]:
    """A dense embedding of 7 channels, maps at strides 16, 8 and 4, and texts."""
    torch.manual_seed(3)
    maps = [torch.randn(c, side * k, side * k) for c, k in ((6, 2), (5, 4), (4, 8))]
    return torch.randn(7, side, side), maps, torch.randn(texts, 80, 7)


def convnext(block: nn.Module, maps: Tensor) -> Tensor:
    w = dict(block.named_parameters())
    channels = maps.shape[1]
    inner = F.conv2d(maps, w["dwconv.weight"], w["dwconv.bias"], padding=4, groups=channels)
    inner = inner.permute(0, 2, 3, 1)
    inner = F.layer_norm(inner, (channels,), w["norm.weight"], w["norm.bias"], 1e-6)
    inner = F.gelu(F.linear(inner, w["pwconv1.weight"], w["pwconv1.bias"]))
    inner = w["gamma"] * F.linear(inner, w["pwconv2.weight"], w["pwconv2.bias"])
    return maps + inner.permute(0, 3, 1, 2)


def attention(block: ClassAttention, classes: Tensor) -> Tensor:
    """(T, C) of one location, in plain loops over heads."""
    w = dict(block.named_parameters())
    size = classes.shape[-1:]
    normal = F.layer_norm(classes, size, w["norm1.weight"], w["norm1.bias"])
    q, k, v = (
        F.linear(normal, w[f"attention.{x}.weight"], w[f"attention.{x}.bias"]).chunk(4, -1)
        for x in "qkv"
    )
    heads = []
    for head in range(4):
        scores = (F.elu(q[head]) + 1) @ (F.elu(k[head]) + 1).T
        heads.append(scores @ v[head] / (scores.sum(-1, keepdim=True) + 1e-6))
    x = classes + torch.cat(heads, -1)
    normal = F.layer_norm(x, size, w["norm2.weight"], w["norm2.bias"])
    inner = F.relu(F.linear(normal, w["MLP.0.weight"], w["MLP.0.bias"]))
    return classes + x + F.linear(inner, w["MLP.2.weight"], w["MLP.2.bias"])


def fused(block: FusionBlock, maps: Tensor, image: Tensor, cost: Tensor) -> Tensor:
    maps = convnext(block.cnext, maps)
    for y in range(maps.shape[2]):
        for x in range(maps.shape[3]):
            maps[:, :, y, x] = attention(block.attention, maps[:, :, y, x])
    maps = F.conv_transpose2d(maps, block.up.weight, block.up.bias, stride=2)
    maps = torch.cat([maps, image.repeat(len(maps), 1, 1, 1), cost], 1)
    for conv, norm in ((0, 1), (3, 4)):
        first, second = block.conv.double_conv[conv], block.conv.double_conv[norm]
        assert isinstance(first, nn.Conv2d)
        assert isinstance(second, nn.GroupNorm)
        maps = F.conv2d(maps, first.weight, padding=1)
        groups = maps.shape[1] // 16
        maps = F.relu(F.group_norm(maps, groups, second.weight, second.bias))
    return maps


def described(
    decoder: GradualFusionDecoder,
    image: Tensor,
    guides: list[Tensor],
    texts: Tensor,
    topk: int | None = None,
) -> Tensor:
    """The decoder in plain steps; rejected classes stay in place."""
    w = dict(decoder.named_parameters())
    image, texts = image / image.norm(dim=0), texts / texts.norm(dim=-1, keepdim=True)
    cost = torch.einsum("chw,tpc->tphw", image, texts)
    maps = F.conv2d(cost, w["conv1.weight"], w["conv1.bias"], padding=3)
    alive = list(range(len(texts)))
    blocks = (decoder.decoder1, decoder.decoder2, decoder.decoder3)
    for i, (guide, block) in enumerate(zip(guides, blocks, strict=True)):
        if topk is not None:
            ranks = F.conv2d(maps, w[f"head{i}.weight"], w[f"head{i}.bias"], padding=1)[:, 0]
            best = ranks.argsort(0, descending=True)[:topk]
            stay = [t for t in range(len(alive)) if (best == t).any()]
            alive, maps, cost = [alive[t] for t in stay], maps[stay], cost[stay]
        name = f"decoder_corr_guidance_projection.{i}.0"
        cost = F.conv_transpose2d(cost, w[f"{name}.weight"], w[f"{name}.bias"], stride=2).relu()
        name = f"decoder_guidance_projection.{i}.0"
        seen = F.conv2d(guide[None], w[f"{name}.weight"], w[f"{name}.bias"], padding=1).relu()
        maps = fused(block, maps, seen, cost)
    found = F.conv2d(maps, w["head.weight"], w["head.bias"], padding=1).sigmoid()[:, 0]
    scores = torch.zeros(len(texts), *found.shape[1:])
    scores[alive] = found
    return scores


@pytest.mark.parametrize("topk", [None, 1, 2])
def test_the_decoder_does_what_the_paper_says(
    decoder: GradualFusionDecoder, topk: int | None
) -> None:
    image, guides, texts = scene(12, side=2)
    expected = described(decoder, image, guides, texts, topk)
    found = decoder(image, guides, texts, topk)
    assert found.shape == (12, 16, 16)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert found.std() > 0.01  # or nothing would have been compared
    rejected = (found == 0).flatten(1).all(1)
    assert bool(rejected.any()) == (topk is not None)
    assert (found[~rejected] > 0).all()


def test_many_classes_are_worked_off_in_parts(decoder: GradualFusionDecoder) -> None:
    image, guides, texts = scene(40, side=2)
    found = decoder(image, guides, texts)
    expected = described(decoder, image, guides, texts)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_many_places_are_worked_off_in_parts(decoder: GradualFusionDecoder) -> None:
    """2,304 places, of which a part ends after 2,048."""
    layer = decoder.decoder3.attention
    maps = torch.randn(3, 32, 48, 48)
    found = layer(maps)
    for place in (0, 49, 2047, 2048, 2303):
        expected = attention(layer, maps.flatten(2)[:, :, place])
        torch.testing.assert_close(found.flatten(2)[:, :, place], expected, atol=1e-5, rtol=1e-4)


def test_fast_mode_that_rejects_nothing_is_normal_mode(decoder: GradualFusionDecoder) -> None:
    """k = T."""
    image, guides, texts = scene(5)
    normal = decoder(image, guides, texts)
    assert torch.equal(decoder(image, guides, texts, topk=5), normal)
    assert not torch.equal(decoder(image, guides, texts, topk=1), normal)


def test_sizes_are_the_published_ones() -> None:
    """A cost volume of 80 x T x 24 x 24 becomes T x 192 x 192; SED-B's widths."""
    torch.manual_seed(0)
    network = GradualFusionDecoder((512, 256, 128)).requires_grad_(False)
    image, texts = torch.randn(640, 24, 24), torch.randn(2, 80, 640)
    guides = [torch.randn(c, s, s) for c, s in ((512, 48), (256, 96), (128, 192))]
    assert cost_volume(image, texts).shape == (2, 80, 24, 24)
    assert network(image, guides, texts).shape == (2, 192, 192)


def test_the_encoder_hands_on_four_stages(sed_checkpoint: Path) -> None:
    network, clip = load_sed(f"local-dir:{sed_checkpoint.parent}", sed_checkpoint, CPU)
    torch.manual_seed(0)
    image, texts = torch.randn(3, 64, 64), torch.randn(2, 80, 32)
    visual = clip.network.visual
    maps = visual.trunk.stem(image[None])
    stages = [maps := stage(maps) for stage in visual.trunk.stages]
    dense = torch.stack(
        [
            torch.stack([visual.head(visual.trunk.head(maps[:, :, y : y + 1, x : x + 1]))[0]
                         for x in range(2)], -1)
            for y in range(2)
        ],
        -2,
    )  # fmt: skip
    guides = [stages[2][0], stages[1][0], stages[0][0]]
    expected = described(network.transformer, dense, guides, texts)
    torch.testing.assert_close(network(image, texts), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("size", "input_px", "resized"),
    [
        ((480, 640), 768, (640, 853)),
        ((1000, 400), 768, (1600, 640)),
        ((512, 1), 768, (2560, 5)),
        ((480, 640), 384, (320, 427)),
        ((1, 4096), 32, (1, 107)),
        ((427, 640), 768, (640, 959)),
    ],
)
def test_images_are_resized_twice_and_end_square(
    size: tuple[int, int], input_px: int, resized: tuple[int, int]
) -> None:
    """Short side 640 and long one at most 2560, as Pillow resizes; then 768 x 768 of any shape."""
    assert resized_size(*size, input_px) == resized
    torch.manual_seed(0)
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
    pillow = Image.fromarray(image.movedim(0, -1).numpy())
    pillow = pillow.resize(resized[::-1], Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.array(pillow)).movedim(-1, 0)[None].float()
    expected = F.interpolate(pixels, (input_px, input_px), mode="bilinear")[0]
    torch.testing.assert_close(fitted(image, input_px), expected, atol=0, rtol=0)
