"""SAM's mask decoder for many points on few images, with a third of the multiplications.

It uses the weights of `segment_anything.modeling.MaskDecoder` and gives the same result, up to
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


class ImageProjections(NamedTuple):
    """Projections of one image in the first layer, which are the same for all its prompts.

    Attributes:
        embedding: (N, C), the image embedding plus the embedding of "no mask".
        key: (H, N, c) keys for the attention from tokens to the image.
        value: (H, N, c) values for the attention from tokens to the image.
        query: (H, N, c) queries for the attention from the image to tokens.
    """

    embedding: Tensor
    key: Tensor
    value: Tensor
    query: Tensor


class Decoded(NamedTuple):
    """Output of the transformer for P prompts, from which masks are computed.

    Attributes:
        ious: (P, M) predicted IoU of each mask of a prompt.
        mask_tokens: (P, M, C) output tokens of the masks.
        keys: (P, N, C) image features of each prompt.
    """

    ious: Tensor
    mask_tokens: Tensor
    keys: Tensor


class SharedMaskDecoder:
    """The prompt encoder and mask decoder of a SAM, for point prompts with three masks each.

    Two things save work; both are exact except for rounding. The projections of the image in the
    first layer are the same for all prompts of an image, and computed once. In later layers, where
    each prompt has its own image features, projections of N locations are applied to the T tokens
    instead: (W x) . q = x . (W^T q).

    Args:
        sam: The model in eval mode, on the device to use. Its weights must not change later.
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
                ImageAttention(
                    layer.cross_attn_token_to_image, self._position, image_is_query=False
                )
                for layer in self._layers[1:]
            ]
            self._from_image = [
                ImageAttention(layer.cross_attn_image_to_token, self._position, image_is_query=True)
                for layer in self._layers
            ]
            final = transformer.final_attn_token_to_image
            self._final = ImageAttention(final, self._position, image_is_query=False)
            first, _, _, second, _ = decoder.output_upscaling
            self._upscale = _linear(first), _linear(second)

    def prompt_bytes(self) -> int:
        """Memory of the image features of one prompt; the largest tensors are multiples of it."""
        return int(self._position.numel() * self._position.element_size())

    def project_images(self, embeddings: Tensor) -> list[ImageProjections]:
        """Computes the projections that all prompts of an image share.

        Args:
            embeddings: (B, C, h, w) from the image encoder.
        """
        no_mask = self._prompts.no_mask_embed.weight
        layer = self._layers[0]
        to_image, from_image = layer.cross_attn_token_to_image, layer.cross_attn_image_to_token
        images = []
        for pixels in embeddings:
            embedding = pixels.flatten(1).T.contiguous() + no_mask
            positioned = embedding + self._position
            key = separate_heads(to_image.k_proj(positioned), to_image.num_heads)
            value = separate_heads(to_image.v_proj(embedding), to_image.num_heads)
            query = separate_heads(from_image.q_proj(positioned), from_image.num_heads)
            images.append(ImageProjections(embedding, key, value, query))
        return images

    def decode(
        self, points: Tensor, images: Sequence[ImageProjections], counts: Sequence[int]
    ) -> Decoded:
        """Runs the transformer.

        Args:
            points: (P, 2) float64 x and y in the encoder's input, in the order of images.
            images: The images that the points are on.
            counts: Number of points on each image.
        """
        decoder = self._decoder
        labels = torch.ones(len(points), 1, dtype=torch.int, device=points.device)
        sparse, _ = self._prompts(points=(points[:, None], labels), boxes=None, masks=None)
        own = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
        tokens = torch.cat([own.expand(len(points), -1, -1), sparse], dim=1)  # (P, T, C)
        queries, keys = self._first_layer(tokens, images, counts)
        for layer, to_image, from_image in zip(
            self._layers[1:], self._to_image, self._from_image[1:], strict=True
        ):
            positioned = queries + tokens
            attended = layer.self_attn(q=positioned, k=positioned, v=queries)
            queries = layer.norm1(queries + attended)
            queries = layer.norm2(queries + to_image.read(queries + tokens, keys))
            queries = layer.norm3(queries + layer.mlp(queries))
            scores = from_image.scores(queries + tokens, keys)
            keys = layer.norm4(from_image.write(keys, scores, queries))
        # A single point has masks 1 to 3; mask 0 and the tokens of the prompt are no longer used.
        used = torch.tensor([0, *range(2, 1 + decoder.num_mask_tokens)], device=points.device)
        queries, tokens = queries[:, used], tokens[:, used]
        queries = decoder.transformer.norm_final_attn(
            queries + self._final.read(queries + tokens, keys)
        )
        ious = decoder.iou_prediction_head(queries[:, 0])[:, 1:]
        return Decoded(ious, queries[:, 1:], keys)

    def _first_layer(
        self, tokens: Tensor, images: Sequence[ImageProjections], counts: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """Queries (P, T, C) and keys (P, N, C) after the layer with shared image projections."""
        layer, split = self._layers[0], list(counts)
        to_image, from_image = layer.cross_attn_token_to_image, layer.cross_attn_image_to_token
        queries = layer.norm1(layer.self_attn(q=tokens, k=tokens, v=tokens))
        projected = to_image.q_proj(queries + tokens).split(split)
        read = [
            read_shared(scores_on_shared(rows, image.key).softmax(-1), image.value)
            for rows, image in zip(projected, images, strict=True)
        ]
        queries = layer.norm2(queries + to_image.out_proj(torch.cat(read)))
        queries = layer.norm3(queries + layer.mlp(queries))
        projected = from_image.k_proj(queries + tokens).split(split)
        keys = [
            self._from_image[0].write(
                image.embedding[None], scores_on_shared(rows, image.query).transpose(0, 1), own
            )
            for rows, own, image in zip(projected, queries.split(split), images, strict=True)
        ]
        return queries, layer.norm4(torch.cat(keys))

    def mask_logits(self, decoded: Decoded, wanted: Tensor) -> Tensor:
        """Computes the logits of the wanted masks.

        Args:
            decoded: From `decode`.
            wanted: (P, M) bool.

        Returns:
            (number of wanted masks, 4 h, 4 w), in the order of prompts.
        """
        height, width = self.embedding_px
        some = wanted.any(1).nonzero()[:, 0]
        wanted, keys, tokens = wanted[some], decoded.keys[some], decoded.mask_tokens[some]
        mlps = self._decoder.output_hypernetworks_mlps[1:]
        hyper = torch.stack([mlp(tokens[:, i]) for i, mlp in enumerate(mlps)], dim=1)
        _, norm, activate, _, activate_too = self._decoder.output_upscaling
        # A transposed convolution with stride and kernel 2 maps each location linearly to 2 x 2
        # locations. Channels stay last; pixels are reordered only when they are masks.
        features = _apply(keys, *self._upscale[0])  # (P, N, 4, C / 4)
        features = functional.layer_norm(
            features, features.shape[-1:], norm.weight, norm.bias, norm.eps
        )
        features = activate_too(_apply(activate(features), *self._upscale[1]))  # (P, N, 4, 4, C/8)
        masks = hyper @ features.flatten(1, 3).mT
        chosen: Tensor = masks.view(*wanted.shape, height, width, 2, 2, 2, 2)[wanted]
        return chosen.permute(0, 1, 3, 5, 2, 4, 6).reshape(-1, 4 * height, 4 * width)


def _linear(convolution: Any) -> tuple[Tensor, Tensor]:
    """A transposed 2 x 2 convolution with stride 2, as weight (4 outputs, inputs) and bias."""
    weight = convolution.weight.permute(2, 3, 1, 0)  # (dy, dx, outputs, inputs)
    return weight.flatten(0, 2).contiguous(), convolution.bias.repeat(4)


def _apply(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Applies the map of `_linear`: (..., inputs) to (..., 4, outputs)."""
    mapped = functional.linear(features, weight, bias)
    return mapped.view(*mapped.shape[:-1], 4, len(bias) // 4)
