"""Attention between a few tokens and the thousands of locations of an image.

Letters as in `mask_decoder.py`.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


def separate_heads(projected: Tensor, heads: int) -> Tensor:
    """(..., L, H c) to (..., H, L, c)."""
    return projected.reshape(*projected.shape[:-1], heads, -1).transpose(-3, -2)


def scores_on_shared(tokens: Tensor, image: Tensor) -> Tensor:
    """Attention scores between the tokens of all prompts and the same image.

    Args:
        tokens: (P, T, H c), projected.
        image: (H, N, c), projected.

    Returns:
        (H, P, T, N), divided by sqrt(c).
    """
    heads, _, channels = image.shape
    rows = separate_heads(tokens.flatten(0, 1) / math.sqrt(channels), heads)  # (H, P T, c)
    return (rows @ image.mT).reshape(heads, *tokens.shape[:2], -1)


def read_shared(weights: Tensor, values: Tensor) -> Tensor:
    """Attention output of tokens that share one image.

    Args:
        weights: (H, P, T, N), of sum 1 over N.
        values: (H, N, c).

    Returns:
        (P, T, H c), before the output projection.
    """
    read = weights.flatten(1, 2) @ values  # (H, P T, c)
    return read.transpose(0, 1).reshape(*weights.shape[1:3], -1)


class ImageAttention:
    """One of SAM's cross-attentions, for prompts that each have their own image features.

    Locations outnumber tokens by hundreds, so the projections of the image are applied to the
    tokens instead: (W x) . q = x . (W^T q) for scores, and sum_n a_n W x_n = W (sum_n a_n x_n) for
    values. The position encoding of the locations is the same for all images; its part of the
    scores is projected once, here.

    Args:
        attention: A `segment_anything.modeling.transformer.Attention`.
        position: (N, C) encoding of the locations.
        image_is_query: Whether the locations are the queries and the tokens the keys, or the other
            way round.
    """

    def __init__(self, attention: Any, position: Tensor, *, image_is_query: bool) -> None:
        self._module, self._heads = attention, attention.num_heads
        image = attention.q_proj if image_is_query else attention.k_proj
        self._tokens = attention.k_proj if image_is_query else attention.q_proj
        self._image = image.weight.view(self._heads, -1, image.in_features)  # (H, c, C)
        # The bias matters only where the locations are the queries: a softmax over locations does
        # not change if the same number is added to the scores of all locations.
        self._position = separate_heads(position @ image.weight.T + image.bias, self._heads)

    def scores(self, tokens: Tensor, keys: Tensor) -> Tensor:
        """Scores between tokens (P, T, C), with positions, and keys (P, N, C): (P, H, T, N)."""
        rows = self._tokens(tokens)
        shared = scores_on_shared(rows, self._position).transpose(0, 1)
        scaled = separate_heads(rows, self._heads) / math.sqrt(self._image.shape[1])
        own = (scaled @ self._image).flatten(1, 2)  # (P, H T, C)
        found = torch.baddbmm(shared.flatten(1, 2), own, keys.mT)
        return found.view(shared.shape)

    def read(self, tokens: Tensor, keys: Tensor) -> Tensor:
        """Attention output of tokens (P, T, C) that attend to keys (P, N, C): (P, T, C)."""
        weights = self.scores(tokens, keys).softmax(-1)
        read = (weights.flatten(1, 2) @ keys).view(*weights.shape[:3], -1)  # (P, H, T, C)
        values = self._module.v_proj
        weight = values.weight.view(self._heads, -1, values.in_features)  # (H, c, C)
        found = (read @ weight.mT).transpose(1, 2).flatten(2) + values.bias
        projected: Tensor = self._module.out_proj(found)
        return projected

    def write(self, keys: Tensor, scores: Tensor, tokens: Tensor) -> Tensor:
        """Adds to keys the attention output of their locations, which attend to tokens.

        Args:
            keys: (P, N, C), or (1, N, C) while all prompts have the same keys.
            scores: (P, H, T, N).
            tokens: (P, T, C).

        Returns:
            (P, N, C).
        """
        weights = scores.softmax(2)
        output = self._module.out_proj
        values = separate_heads(self._module.v_proj(tokens), self._heads)  # (P, H, T, c)
        # The weights of a head sum to 1, so each of the H heads can add 1/H of the bias.
        weight = output.weight.T.reshape(self._heads, -1, output.out_features)  # (H, c, C)
        rows = values @ weight + output.bias / self._heads
        return torch.baddbmm(keys, weights.flatten(1, 2).mT, rows.flatten(1, 2))
