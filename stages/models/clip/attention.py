"""Vision transformers of open_clip with other attention in their last blocks, without training.

With X the tokens that enter a block, q, k, v made of LN1(X) head by head, s one over the square
root of a head's width, O the output projection and P the final LN and projection, the block itself
is X' = X + O(softmax(s q k^T) v), X'' = X' + FFN(LN2(X')). Layer scales belong to O and FFN.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from open_clip.transformer import Attention, VisionTransformer
from torch import Tensor
from torch.nn import functional as F

from stages.models.clip.clip_weights import Dense

Block: TypeAlias = Any
"""One of open_clip's two residual attention blocks; it publishes no types."""

VARIANTS = ("vanilla", "maskclip", "sclip", "gem")
"""What these transformers can do."""

GEM_BLOCKS = 6
"""How many of the last blocks GEM replaces: its published depth of 7 counts the block before."""


def projected_tokens(visual: VisionTransformer, windows: Tensor, dense: Dense) -> Tensor:
    """The patches of windows in the joint space, by one of the variants.

    Args:
        visual: The image side.
        windows: (B, 3, H, W) float, normalised, of the size that its positions are for.
        dense: The variant, and whether the last block keeps its residual and its FFN.

    Returns:
        (B, N, D), a token a patch, row by row, of any length.
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
    """GEM's attention of tokens to what is like them (arXiv 2312.00878), one iteration.

    With t of length 1, t becomes softmax(kappa t t^T) t, is brought to length 1 again, and the
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
    """A block with MaskCLIP's (arXiv 2112.01071) or SCLIP's (arXiv 2312.01597) attention.

    MaskCLIP's is the identity, so that a token's value comes back. SCLIP's is softmax(s q q^T) +
    softmax(s k k^T): a sum, whose rows add up to 2.

    Args:
        block: Of a tower.
        tokens: (B, N, width), what enters it.
        dense: The variant, any but gem, and whether the block keeps its residual and its FFN.

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
    """GEM's stream: G + O(mean over t in q, k, v of its attention's output), without any FFN.

    q, k, v come from the original stream, which runs on beside it. The inverse temperature is s
    times the mean length of LN1(X) over the tokens of an image.
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
    together = F.linear(normed, own.in_proj_weight, own.in_proj_bias)
    apart = together.reshape(*together.shape[:2], 3, own.num_heads, -1)
    q, k, v = apart.permute(2, 0, 3, 1, 4)
    if isinstance(own, Attention):  # of open_clip's custom blocks
        return own.ln_q(q), own.ln_k(k), v
    return q, k, v


def _output(block: Block, attended: Tensor) -> Tensor:
    """O: (B, heads, N, d) of attended values to (B, N, width), as the block would add them."""
    own, is_custom = block.attn, isinstance(block.attn, Attention)
    if is_custom and own.head_scale is not None:
        attended = attended * own.head_scale
    joined = attended.transpose(1, 2).flatten(2)
    output = own.out_proj(own.ln_inner(joined) if is_custom else joined)
    scaled: Tensor = block.ls_1(block.ln_attn(output) if is_custom else output)
    return scaled
