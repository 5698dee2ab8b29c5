"""SED's network compared with the published description: names, shapes and each step."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.errors import ConfigError
from stages.pseudolabel.sed.checkpoint import build, checkpoint_diff, load_sed
from stages.pseudolabel.sed.class_attention import ClassAttention, linear_attention
from stages.pseudolabel.sed.decoder import GradualFusionDecoder, cost_volume, survivors
from stages.pseudolabel.sed.fusion import FusionBlock
from stages.pseudolabel.sed.network import Sed, fitted, resized_size

CPU = torch.device("cpu")
Shapes = dict[str, tuple[int, ...]]


def module(name: str, *weight: int, bias: bool = True) -> Shapes:
    """A weight and its bias, as long as the outputs; transposed ones are given by hand."""
    return {f"{name}.weight": weight} | ({f"{name}.bias": weight[:1]} if bias else {})


def decoder_shapes(res4: int, res3: int, res2: int) -> Shapes:
    """Names and shapes of the aggregator in the official checkpoints."""
    shapes = module("conv1", 128, 80, 7, 7)
    for i, (channels, guide) in enumerate(zip((res4, res3, res2), (32, 16, 8), strict=True)):
        shapes |= module(f"decoder_guidance_projection.{i}.0", guide, channels, 3, 3)
    for i, (inside, out) in enumerate([(80, 32), (32, 16), (16, 8)]):
        name = f"decoder_corr_guidance_projection.{i}.0"
        shapes |= {f"{name}.weight": (inside, out, 2, 2), f"{name}.bias": (out,)}
    for i, (c, o, g) in enumerate([(128, 64, 32), (64, 32, 16), (32, 16, 8)], start=1):
        name = f"decoder{i}"
        shapes |= {f"{name}.up.weight": (c, c - g, 2, 2), f"{name}.up.bias": (c - g,)}
        conv, cnext, attention = (f"{name}.{x}" for x in ("conv.double_conv", "cnext", "attention"))
        shapes |= module(f"{conv}.0", o, c + g, 3, 3, bias=False) | module(f"{conv}.1", o)
        shapes |= module(f"{conv}.3", o, o, 3, 3, bias=False) | module(f"{conv}.4", o)
        shapes |= {f"{cnext}.gamma": (c,)} | module(f"{cnext}.dwconv", c, 1, 9, 9)
        shapes |= module(f"{cnext}.norm", c)
        shapes |= module(f"{cnext}.pwconv1", 4 * c, c) | module(f"{cnext}.pwconv2", c, 4 * c)
        for x in "qkv":
            shapes |= module(f"{attention}.attention.{x}", c, c)
        shapes |= module(f"{attention}.MLP.0", 4 * c, c) | module(f"{attention}.MLP.2", c, 4 * c)
        shapes |= module(f"{attention}.norm1", c) | module(f"{attention}.norm2", c)
    for name, channels in (("head0", 128), ("head1", 64), ("head2", 32), ("head", 16)):
        shapes |= module(name, 1, channels, 3, 3)
    return shapes


def clip_shapes(
    widths: tuple[int, int, int, int], embedding: int, text: int, layers: int, head: Shapes
) -> Shapes:
    """Names and shapes of the CLIP in them, as of timm 0.8.3.dev0."""
    shapes: Shapes = {
        "positional_embedding": (77, text),
        "text_projection": (text, embedding),
        "logit_scale": (),
        "token_embedding.weight": (49408, text),
    }
    shapes |= module("ln_final", text)
    for i in range(layers):
        block = f"transformer.resblocks.{i}"
        shapes |= module(f"{block}.ln_1", text) | module(f"{block}.ln_2", text)
        shapes |= {
            f"{block}.attn.in_proj_weight": (3 * text, text),
            f"{block}.attn.in_proj_bias": (3 * text,),
        }
        shapes |= module(f"{block}.attn.out_proj", text, text)
        shapes |= module(f"{block}.mlp.c_fc", 4 * text, text)
        shapes |= module(f"{block}.mlp.c_proj", text, 4 * text)
    trunk = "visual.trunk"
    shapes |= module(f"{trunk}.stem.0", widths[0], 3, 4, 4) | module(f"{trunk}.stem.1", widths[0])
    for i, (width, depth) in enumerate(zip(widths, (3, 3, 27, 3), strict=True)):
        stage = f"{trunk}.stages.{i}"
        if i:
            before = widths[i - 1]
            shapes |= module(f"{stage}.downsample.0", before)
            shapes |= module(f"{stage}.downsample.1", width, before, 2, 2)
        for j in range(depth):
            block = f"{stage}.blocks.{j}"
            shapes |= {f"{block}.gamma": (width,)} | module(f"{block}.conv_dw", width, 1, 7, 7)
            shapes |= module(f"{block}.norm", width)
            shapes |= module(f"{block}.mlp.fc1", 4 * width, width)
            shapes |= module(f"{block}.mlp.fc2", width, 4 * width)
    return shapes | module(f"{trunk}.head.norm", widths[-1]) | head


def official(model: str) -> Shapes:
    """Names, less detectron2's prefix, and shapes of SED-L or SED-B."""
    if model == "convnext_large_d_320":
        head = module("visual.head.mlp.fc1", 1536, 1536)
        head |= module("visual.head.mlp.fc2", 768, 1536, bias=False)
        clip = clip_shapes((192, 384, 768, 1536), 768, 768, 16, head)
        decoder = decoder_shapes(768, 384, 192)
    else:
        head = module("visual.head.proj", 640, 1024, bias=False)
        clip = clip_shapes((128, 256, 512, 1024), 640, 640, 12, head)
        decoder = decoder_shapes(512, 256, 128)
    return {
        **{f"clip_model.{name}": shape for name, shape in clip.items()},
        **{f"transformer.{name}": shape for name, shape in decoder.items()},
    }


@cache
def bare(model: str) -> Sed:
    """SED of the full size on the meta device."""
    with torch.device("meta"):
        return build(model).eval()


@pytest.mark.parametrize(
    ("model", "tensors", "decoder_parameters"),
    [("convnext_large_d_320", 658, 1_473_164), ("convnext_base_w_320", 608, 1_376_396)],
)
def test_names_and_shapes_are_the_official_ones(
    model: str, tensors: int, decoder_parameters: int
) -> None:
    """Parameter counts, and a strict load of the full size."""
    checkpoint = {
        name: torch.empty(shape, device="meta") for name, shape in official(model).items()
    }
    network = bare(model)
    assert len(checkpoint) == tensors
    assert checkpoint_diff(network.state_dict(), checkpoint) is None
    result = network.load_state_dict(checkpoint, strict=True, assign=True)
    assert (result.missing_keys, result.unexpected_keys) == ([], [])
    decoder = network.transformer
    assert len(decoder.state_dict()) == 115
    assert sum(tensor.numel() for tensor in decoder.state_dict().values()) == decoder_parameters


@pytest.mark.parametrize("model", ["convnext_large_d_320", "convnext_base_w_320"])
def test_what_the_weights_do_not_say_is_as_published(model: str) -> None:
    """Epsilons, activations and heads, which loading a checkpoint does not check."""
    clip = bare(model).clip_model
    trunk = clip.visual.trunk
    norms = [part for part in trunk.modules() if isinstance(part, nn.LayerNorm)]
    assert {norm.eps for norm in norms} == {1e-6}
    assert {part.approximate for part in clip.modules() if isinstance(part, nn.GELU)} == {"none"}
    first = clip.transformer.resblocks[0]
    assert isinstance(first.mlp.gelu, nn.GELU)
    assert first.attn.num_heads == {768: 12, 640: 10}[first.attn.embed_dim]
    assert [stage["reduction"] for stage in trunk.feature_info] == [4, 8, 16, 32]


def test_an_image_side_without_stages_is_refused() -> None:
    with torch.device("meta"), pytest.raises(ConfigError) as raised:
        build("ViT-B-32")
    assert str(raised.value) == (
        "model: SED needs a ConvNeXt image encoder; "
        "use convnext_large_d_320 (SED-L) or convnext_base_w_320 (SED-B)"
    )


def test_attention_that_tells_nothing_apart_is_the_mean() -> None:
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
    torch.testing.assert_close(fitted(image, input_px), expected, atol=1.01, rtol=0)
