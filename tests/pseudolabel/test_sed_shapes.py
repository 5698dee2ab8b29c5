"""Names and shapes of SED's network, compared with the official checkpoints."""

from functools import cache

import pytest
import torch
from torch import nn

from stages.pseudolabel.sed.checkpoint import build, checkpoint_diff
from stages.pseudolabel.sed.network import Sed

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
