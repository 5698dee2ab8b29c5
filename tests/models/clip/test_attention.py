from typing import Any

import pytest
import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor
from torch.nn.functional import linear, normalize

from stages.models.clip.attention import VARIANTS, projected_tokens, self_self_attention
from stages.models.clip.clip_weights import Dense

HEADS, WIDTH, TOKENS = 2, 32, 17  # of windows of 32 px in patches of 8, and a class token


def tower(layers: int = 2, **keys: Any) -> VisionTransformer:
    """A random tower whose norms and biases do something too, as trained ones do."""
    torch.manual_seed(0)
    visual = VisionTransformer(
        image_size=32, patch_size=8, width=WIDTH, layers=layers, heads=HEADS, mlp_ratio=2,
        output_dim=24, **keys,
    )  # fmt: skip
    for parameter in visual.parameters():
        parameter.requires_grad_(False).add_(0.2 * torch.randn_like(parameter))
    return visual.eval()


@pytest.fixture
def windows() -> Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def tokens_before(visual: VisionTransformer, windows: Tensor, blocks: int) -> Tensor:
    """(B, N, width), the class token first."""
    inner = visual.forward_intermediates(
        windows, indices=[blocks - 1], output_fmt="NLC", output_extra_tokens=True
    )
    prefix, patches = inner["image_intermediates_prefix"][0], inner["image_intermediates"][0]
    return torch.cat([prefix, patches], dim=1)


def heads(block: Any, x: Tensor) -> list[Tensor]:
    """q, k and v as (B, heads, N, d), from the block's input."""
    together = linear(block.ln_1(x), block.attn.in_proj_weight, block.attn.in_proj_bias)
    return [part.reshape(2, TOKENS, HEADS, -1).transpose(1, 2) for part in together.chunk(3, -1)]


def out(block: Any, attended: Tensor) -> Tensor:
    joined: Tensor = block.attn.out_proj(attended.transpose(1, 2).reshape(2, TOKENS, WIDTH))
    return joined


def by_hand(visual: VisionTransformer, windows: Tensor, maps: Any) -> Tensor:
    """X' = X + O(A v), X'' = X' + FFN(LN2 X'), then P, with A of q and k."""
    block, x = visual.transformer.resblocks[-1], tokens_before(visual, windows, 1)
    q, k, v = heads(block, x)
    x = x + out(block, maps(q, k, (WIDTH // HEADS) ** -0.5) @ v)
    x = x + block.mlp(block.ln_2(x))
    projected: Tensor = visual.ln_post(x)[:, 1:] @ visual.proj
    return projected


MAPS: dict[str, Any] = {
    "vanilla": lambda q, k, s: (s * q @ k.mT).softmax(-1),
    "maskclip": lambda q, k, s: torch.eye(TOKENS),
    "sclip": lambda q, k, s: (s * q @ q.mT).softmax(-1) + (s * k @ k.mT).softmax(-1),
}


@pytest.mark.parametrize("variant", MAPS)
def test_the_last_block_attends_as_published(windows: Tensor, variant: Any) -> None:
    """MaskCLIP (arXiv 2112.01071) is vanilla attention with the identity for its matrix."""
    visual = tower()
    found = projected_tokens(visual, windows, Dense(variant))
    torch.testing.assert_close(found, by_hand(visual, windows, MAPS[variant]))


def test_vanilla_is_what_the_tower_computes_itself(windows: Tensor) -> None:
    variants: tuple[dict[str, Any], ...] = ({}, {"ls_init_value": 0.5}, CUSTOM)
    for keys in variants:
        visual = tower(**keys)
        own = visual.ln_post(tokens_before(visual, windows, 2))[:, 1:] @ visual.proj
        torch.testing.assert_close(projected_tokens(visual, windows, Dense("vanilla")), own)


CUSTOM: dict[str, Any] = {
    **{"ls_init_value": 0.5, "qk_norm": True, "scale_heads": True},
    **{"scale_attn_inner": True, "scale_attn": True, "scale_fc": True},
}


def test_sclip_with_equal_values_gives_them_twice(windows: Tensor) -> None:
    """Rows of SCLIP's attention sum to 2, so constant v comes out as O(2 v)."""
    visual = tower()
    block = visual.transformer.resblocks[-1]
    block.attn.in_proj_weight[2 * WIDTH :] = 0
    value = block.attn.in_proj_bias[2 * WIDTH :]
    x = tokens_before(visual, windows, 1)
    x = x + block.attn.out_proj(2 * value)
    x = x + block.mlp(block.ln_2(x))
    expected = visual.ln_post(x)[:, 1:] @ visual.proj
    torch.testing.assert_close(projected_tokens(visual, windows, Dense("sclip")), expected)


@pytest.mark.parametrize("variant", MAPS)
def test_residual_and_ffn_can_be_left_out(windows: Tensor, variant: Any) -> None:
    visual = tower()
    block, x = visual.transformer.resblocks[-1], tokens_before(visual, windows, 1)
    q, k, v = heads(block, x)
    attended = out(block, MAPS[variant](q, k, (WIDTH // HEADS) ** -0.5) @ v)
    for residual, ffn in ((False, False), (True, False), (False, True)):
        z = x + attended if residual else attended
        z = z + block.mlp(block.ln_2(z)) if ffn else z
        expected = visual.ln_post(z)[:, 1:] @ visual.proj
        found = projected_tokens(visual, windows, Dense(variant, residual, ffn))
        torch.testing.assert_close(found, expected)


def gem_by_hand(visual: VisionTransformer, windows: Tensor, replaced: int) -> Tensor:
    """GEM (arXiv 2312.00878) with its matrices written out."""
    blocks = visual.transformer.resblocks
    kept = len(blocks) - replaced
    x = g = tokens_before(visual, windows, kept) if kept else visual._embeds(windows)
    for block in blocks[kept:]:
        parts = heads(block, x)
        kappa = (WIDTH // HEADS) ** -0.5 * block.ln_1(x).norm(dim=-1).mean(1).view(2, 1, 1, 1)
        mean = torch.zeros_like(parts[2])
        for part in parts:
            t = normalize(part, dim=-1)
            t = normalize((kappa * t @ t.mT).softmax(-1) @ t, dim=-1)
            mean += (kappa * t @ t.mT).softmax(-1) @ parts[2] / 3
        g = g + out(block, mean)
        x = block(x)
    projected: Tensor = visual.ln_post(g)[:, 1:] @ visual.proj
    return projected


@pytest.mark.parametrize(("layers", "replaced"), [(8, 6), (6, 6), (3, 3)])
def test_gem_replaces_exactly_the_last_six_blocks(
    windows: Tensor, layers: int, replaced: int
) -> None:
    """In the last blocks; in all blocks of a shallower tower."""
    visual = tower(layers)
    found = projected_tokens(visual, windows, Dense("gem"))
    torch.testing.assert_close(found, gem_by_hand(visual, windows, replaced), rtol=1e-4, atol=1e-4)
    fewer = gem_by_hand(visual, windows, replaced - 1)
    assert not torch.allclose(found, fewer, rtol=1e-2, atol=1e-2)


def test_gem_without_temperature_adds_the_values_block_by_block(windows: Tensor) -> None:
    """As kappa grows, every token is like itself alone, and G grows by O(v) a block."""
    visual = tower(8)
    for block in visual.transformer.resblocks[-6:]:
        # LN1(X) 1e4 times as long, and what is made of it as before: kappa alone grows.
        block.ln_1.weight *= 1e4
        block.ln_1.bias *= 1e4
        block.attn.in_proj_weight /= 1e4
    x = g = tokens_before(visual, windows, 2)
    for block in visual.transformer.resblocks[-6:]:
        g = g + out(block, heads(block, x)[2])
        x = block(x)
    expected = visual.ln_post(g)[:, 1:] @ visual.proj
    found = projected_tokens(visual, windows, Dense("gem"))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_without_any_likeness_self_self_attention_is_the_mean() -> None:
    tokens, values = torch.randn(2, 3, 5, 4), torch.randn(2, 3, 5, 4)
    even = self_self_attention(tokens, values, torch.zeros(2))
    torch.testing.assert_close(even, values.mean(2, keepdim=True).expand(-1, -1, 5, -1))
    sharp = self_self_attention(tokens, values, torch.full((2,), 1e6))
    torch.testing.assert_close(sharp, values)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_window_is_read_alike_in_any_batch(windows: Tensor, variant: Any) -> None:
    """GEM's temperature too is a window's own."""
    visual = tower(7)
    windows[1] *= 5
    together = projected_tokens(visual, windows, Dense(variant))
    for index in range(2):
        alone = projected_tokens(visual, windows[index : index + 1], Dense(variant))
        torch.testing.assert_close(together[index : index + 1], alone, rtol=1e-4, atol=1e-4)
