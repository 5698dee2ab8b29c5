"""Training-free changes of attention in the last blocks of open_clip's vision transformers.

Let X be the input tokens of a block, q, k and v the projections of LN1(X) for each head, s one over
the square root of a head's width, and O the output projection. The block computes
X' = X + O(softmax(s q k^T) v), X'' = X' + FFN(LN2(X')). Layer scales are part of O and FFN.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from open_clip.transformer import Attention, VisionTransformer
from torch import Tensor
from torch.nn import functional as F

from stages.models.clip.clip_weights import Dense

Block: TypeAlias = Any
"""Either of open_clip's residual attention blocks, which have no type annotations."""

VARIANTS = ("vanilla", "maskclip", "sclip", "gem")
"""Variants that these transformers support."""

GEM_BLOCKS = 6
"""Number of last blocks that GEM replaces; its published depth of 7 counts one more block."""


def projected_tokens(visual: VisionTransformer, windows: Tensor, dense: Dense) -> Tensor:
    """Projects the patches of windows into the joint space, by one of the variants.

    Args:
        visual: The image encoder.
        windows: (B, 3, H, W) float, normalised, of the size of its position embeddings.
        dense: The variant, and whether the last block keeps its residual and its FFN.

    Returns:
        (B, N, D), one token for each patch, row by row, of any length.
    """
    blocks = visual.transformer.resblocks
    replaced = GEM_BLOCKS if dense.variant == "gem" else 1
    tokens = visual._embeds(windows)
    for block in blocks[:-replaced]:
        tokens = block(tokens)
    if dense.variant == "gem":
        tokens = _gem(blocks[-replaced:], tokens)
    else:
        tokens = attended_otherwise(blocks[-1], tokens, dense)
    projected: Tensor = visual.ln_post(tokens[:, 1:]) @ visual.proj
    return projected


def self_self_attention(tokens: Tensor, values: Tensor, kappa: Tensor) -> Tensor:
    """GEM's attention of tokens to similar tokens (arXiv 2312.00878), one iteration.

    With t normalised to length 1, t becomes softmax(kappa t t^T) t and is normalised again; the
    result is softmax(kappa t t^T) v.

    Args:
        tokens: (B, heads, N, d), queries, keys or values.
        values: (B, heads, N, d).
        kappa: (B,), the inverse temperature of each image.

    Returns:
        (B, heads, N, d).
    """
    scale = kappa[:, None, None, None]
    unit = F.normalize(tokens, dim=-1)
    alike = F.scaled_dot_product_attention(unit * scale, unit, unit, scale=1.0)
    unit = F.normalize(alike, dim=-1)
    return F.scaled_dot_product_attention(unit * scale, unit, values, scale=1.0)


def attended_otherwise(block: Block, tokens: Tensor, dense: Dense) -> Tensor:
    """Runs a block with MaskCLIP's (arXiv 2112.01071) or SCLIP's (arXiv 2312.01597) attention.

    MaskCLIP's attention is the identity: a token gets its own value. SCLIP's is softmax(s q q^T) +
    softmax(s k k^T), so its rows sum to 2.

    Args:
        block: The block.
        tokens: (B, N, width), its input.
        dense: The variant, except gem, and whether the block keeps its residual and its FFN.

    Returns:
        (B, N, width).
    """
    q, k, v = _heads(block, block.ln_1(tokens))
    attend = F.scaled_dot_product_attention
    if dense.variant == "vanilla":
        attended = attend(q, k, v)
    elif dense.variant == "maskclip":
        attended = v
    else:
        attended = attend(q, q, v) + attend(k, k, v)
    output = _output(block, attended)
    if dense.residual:
        output = tokens + output
    if dense.ffn:
        output = output + block.ls_2(block.mlp(block.ln_2(output)))
    return output


def _gem(blocks: Sequence[Block], tokens: Tensor) -> Tensor:
    """GEM's stream: G + O(mean over t in q, k, v of the attention's output), without FFN.

    q, k and v come from the original stream, which is computed in parallel. The inverse temperature
    is s times the mean length of LN1(X) over the tokens of an image.
    """
    original = stream = tokens
    for position, block in enumerate(blocks):
        if position:
            original = blocks[position - 1](original)
        normed = block.ln_1(original)
        heads = _heads(block, normed)
        width = heads[0].shape[-1]
        kappa = normed.norm(dim=-1).mean(-1) * width**-0.5
        attended = [self_self_attention(t, heads[2], kappa) for t in heads]
        stream = stream + _output(block, torch.stack(attended).mean(0))
    return stream


def _heads(block: Block, normed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """q, k and v of a block, (B, heads, N, d) each, from its LN1(X), (B, N, width)."""
    own = block.attn
    projected = F.linear(normed, own.in_proj_weight, own.in_proj_bias)
    split = projected.reshape(*projected.shape[:2], 3, own.num_heads, -1)
    q, k, v = split.permute(2, 0, 3, 1, 4)
    if isinstance(own, Attention):  # in open_clip's custom blocks
        return own.ln_q(q), own.ln_k(k), v
    return q, k, v


def _output(block: Block, attended: Tensor) -> Tensor:
    """O: attended values, (B, heads, N, d), to the block's output before its sum, (B, N, width)."""
    own, is_custom = block.attn, isinstance(block.attn, Attention)
    if is_custom and own.head_scale is not None:
        attended = attended * own.head_scale
    merged = attended.transpose(1, 2).flatten(2)
    output = own.out_proj(own.ln_inner(merged) if is_custom else merged)
    scaled: Tensor = block.ls_1(block.ln_attn(output) if is_custom else output)
    return scaled
