"""SAM's mask decoder for many points on few images, in a third of its multiplications.

It computes what `segment_anything.modeling.MaskDecoder` does with the weights of that module, up to
rounding. Letters: P prompts, T tokens a prompt, N locations of the embedding (h x w), C channels,
H heads of c channels, M masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from segment_anything.modeling import Sam
from torch import Tensor
from torch.nn import functional

from stages.propose.generator.image_attention import (
    ImageAttention,
    read_shared,
    scores_on_shared,
    separate_heads,
)


class ImageSide(NamedTuple):
    """What the first layer asks of one image, the same for all its prompts.

    Attributes:
        keys: (N, C), the embedding with that of "no mask" added.
        key: (H, N, c) keys for tokens that look at the image.
        value: (H, N, c) values for them.
        query: (H, N, c) queries of locations that look at tokens.
    """

    keys: Tensor
    key: Tensor
    value: Tensor
    query: Tensor


class Decoded(NamedTuple):
    """What the transformer makes of P prompts, before any mask is drawn.

    Attributes:
        ious: (P, M) predicted IoU of each of the prompt's masks.
        mask_tokens: (P, M, C).
        keys: (P, N, C) the image as each prompt sees it.
    """

    ious: Tensor
    mask_tokens: Tensor
    keys: Tensor


class SharedMaskDecoder:
    """The prompt encoder and mask decoder of a SAM, for points, three masks each.

    Two things save work (both exact but for rounding). The image side of the first layer is the
    same for all prompts of an image, and computed once. In later layers, where each prompt has an
    image of its own, projections of N locations are moved to the T tokens: (W x) . q = x . (W^T q).

    Args:
        sam: In eval mode, on the device to use; its weights are read now.
    """

    def __init__(self, sam: Sam) -> None:
        decoder: Any = sam.mask_decoder
        self._decoder, self._prompts = decoder, sam.prompt_encoder
        transformer = decoder.transformer
        self._layers = list(transformer.layers)
        with torch.no_grad():
            position = self._prompts.get_dense_pe()[0]
            self.embedding_px: tuple[int, int] = tuple(position.shape[1:])
            self._position = position.flatten(1).T.contiguous()  # (N, C)
            self._to_image = [
                ImageAttention(layer.cross_attn_token_to_image, self._position, asks=False)
                for layer in self._layers[1:]
            ]
            self._from_image = [
                ImageAttention(layer.cross_attn_image_to_token, self._position, asks=True)
                for layer in self._layers
            ]
            final = transformer.final_attn_token_to_image
            self._final = ImageAttention(final, self._position, asks=False)
            first, _, _, second, _ = decoder.output_upscaling
            self._upscale = _linear(first), _linear(second)

    def prompt_bytes(self) -> int:
        """Memory of one prompt's view of the image, which the largest tensors are multiples of."""
        return int(self._position.numel() * self._position.element_size())

    def image_sides(self, embeddings: Tensor) -> list[ImageSide]:
        """What prompts on these images share.

        Args:
            embeddings: (B, C, h, w) from the image encoder.
        """
        no_mask = self._prompts.no_mask_embed.weight
        layer = self._layers[0]
        to_image, from_image = layer.cross_attn_token_to_image, layer.cross_attn_image_to_token
        sides = []
        for embedding in embeddings:
            keys = embedding.flatten(1).T.contiguous() + no_mask
            placed = keys + self._position
            key = separate_heads(to_image.k_proj(placed), to_image.num_heads)
            value = separate_heads(to_image.v_proj(keys), to_image.num_heads)
            query = separate_heads(from_image.q_proj(placed), from_image.num_heads)
            sides.append(ImageSide(keys, key, value, query))
        return sides

    def decode(self, points: Tensor, sides: Sequence[ImageSide], counts: Sequence[int]) -> Decoded:
        """Runs the transformer.

        Args:
            points: (P, 2) float64, x and y in the frame of the encoder's input.
            sides: The images that the points are on.
            counts: How many of the points are on each; they come in the order of the images.
        """
        decoder = self._decoder
        labels = torch.ones(len(points), 1, dtype=torch.int, device=points.device)
        sparse, _ = self._prompts(points=(points[:, None], labels), boxes=None, masks=None)
        own = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
        tokens = torch.cat([own.expand(len(points), -1, -1), sparse], dim=1)  # (P, T, C)
        queries, keys = self._first_layer(tokens, sides, counts)
        for layer, to_image, from_image in zip(
            self._layers[1:], self._to_image, self._from_image[1:], strict=True
        ):
            placed = queries + tokens
            queries = layer.norm1(queries + layer.self_attn(q=placed, k=placed, v=queries))
            queries = layer.norm2(queries + to_image.read(queries + tokens, keys))
            queries = layer.norm3(queries + layer.mlp(queries))
            scores = from_image.scores(queries + tokens, keys)
            keys = layer.norm4(from_image.write(keys, scores, queries))
        # Masks 1 to 3 are the answers to a single point; mask 0 and the prompt have had their say.
        used = torch.tensor([0, *range(2, 1 + decoder.num_mask_tokens)], device=points.device)
        queries, tokens = queries[:, used], tokens[:, used]
        queries = decoder.transformer.norm_final_attn(
            queries + self._final.read(queries + tokens, keys)
        )
        ious = decoder.iou_prediction_head(queries[:, 0])[:, 1:]
        return Decoded(ious, queries[:, 1:], keys)

    def _first_layer(
        self, tokens: Tensor, sides: Sequence[ImageSide], counts: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """Queries (P, T, C) and keys (P, N, C) after the layer that shares its image side."""
        layer, split = self._layers[0], list(counts)
        to_image, from_image = layer.cross_attn_token_to_image, layer.cross_attn_image_to_token
        queries = layer.norm1(layer.self_attn(q=tokens, k=tokens, v=tokens))
        asked = to_image.q_proj(queries + tokens).split(split)
        read = [
            read_shared(scores_on_shared(rows, side.key).softmax(-1), side.value)
            for rows, side in zip(asked, sides, strict=True)
        ]
        queries = layer.norm2(queries + to_image.out_proj(torch.cat(read)))
        queries = layer.norm3(queries + layer.mlp(queries))
        asked = from_image.k_proj(queries + tokens).split(split)
        keys = [
            self._from_image[0].write(
                side.keys[None], scores_on_shared(rows, side.query).transpose(0, 1), own
            )
            for rows, own, side in zip(asked, queries.split(split), sides, strict=True)
        ]
        return queries, layer.norm4(torch.cat(keys))

    def draw(self, decoded: Decoded, wanted: Tensor) -> Tensor:
        """The logits of some masks.

        Args:
            decoded: From `decode`.
            wanted: (P, M) bool.

        Returns:
            (number wanted, 4 h, 4 w), in the order of prompts.
        """
        height, width = self.embedding_px
        some = wanted.any(1).nonzero()[:, 0]
        wanted, keys, tokens = wanted[some], decoded.keys[some], decoded.mask_tokens[some]
        mlps = self._decoder.output_hypernetworks_mlps[1:]
        hyper = torch.stack([mlp(tokens[:, i]) for i, mlp in enumerate(mlps)], dim=1)
        _, norm, activate, _, activate_too = self._decoder.output_upscaling
        # A transposed convolution of stride and kernel 2 is a linear map of each location to 2 x 2
        # of them; channels stay last, and pixels are put in their places when they are masks.
        features = _apply(keys, *self._upscale[0])  # (P, N, 4, C / 4)
        features = functional.layer_norm(
            features, features.shape[-1:], norm.weight, norm.bias, norm.eps
        )
        features = activate_too(_apply(activate(features), *self._upscale[1]))  # (P, N, 4, 4, C/8)
        masks = hyper @ features.flatten(1, 3).mT
        drawn: Tensor = masks.view(*wanted.shape, height, width, 2, 2, 2, 2)[wanted]
        return drawn.permute(0, 1, 3, 5, 2, 4, 6).reshape(-1, 4 * height, 4 * width)


def _linear(convolution: Any) -> tuple[Tensor, Tensor]:
    """A transposed 2 x 2 convolution of stride 2 as weight (4 outputs, inputs) and bias."""
    weight = convolution.weight.permute(2, 3, 1, 0)  # (dy, dx, outputs, inputs)
    return weight.flatten(0, 2).contiguous(), convolution.bias.repeat(4)


def _apply(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """(..., inputs) to (..., 4, outputs)."""
    mapped = functional.linear(features, weight, bias)
    return mapped.view(*mapped.shape[:-1], 4, len(bias) // 4)
