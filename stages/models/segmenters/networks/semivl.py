"""SemiVL (arXiv 2311.16241): CLIP's ViT, tuned spatially, and a decoder guided by language."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, normalize

from stages.models.clip.attention import attended_otherwise
from stages.models.clip.clip_weights import MASKCLIP
from stages.models.segmenters.networks.base import SegmentationNetwork
from stages.models.segmenters.normalization import Normalization, renormalized
from stages.models.segmenters.resizing import fitted, nearest_multiples, resized

Visual: TypeAlias = Any
"""open_clip's VisionTransformer, a torch module; it publishes no types."""

_WIDTH, _TEXT_WIDTH, _HEADS = 128, 128, 4
_DEEP_SKIP, _FINE_SKIP, _CONV_SKIP = 32, 16, 32
_MIDDLE, _LAST = 64, 32
_POOL = 4
"""Side of the squares that classes attend to each other in."""


class SemiVL(SegmentationNetwork):
    """Each class's map of likeness to its name, refined in space, among classes, and by skips.

    Of the ViT the attention and the positions are trained, all else in it stays ("spatial
    fine-tuning", section 3.2). Images are resized to multiples of the patch, and logits back.

    Args:
        num_classes: Number of classes C.
        visual: The image side of a CLIP, with positions for images of the training's size.
        text: (C, D) float, an embedding a class; the decoder uses only its direction.
        conv_stem: Images to features (N, 256, h, w) at stride 4, trained too; takes the place of
            the finest skip (Cityscapes).
        clip_statistics: Mean and deviation of the channels that the CLIP gets; None = it gets the
            images as all networks do, normalized by those of ImageNet.
    """

    encoder: nn.ModuleDict

    def __init__(
        self,
        num_classes: int,
        visual: Visual,
        text: Tensor,
        *,
        conv_stem: nn.Module | None = None,
        clip_statistics: Normalization | None = None,
    ) -> None:
        super().__init__()
        self.encoder = nn.ModuleDict({"clip": visual})
        if conv_stem is not None:
            self.encoder["conv"] = conv_stem
        spatial = (".attn.", "positional_embedding")
        for name, parameter in visual.named_parameters():
            parameter.requires_grad_(any(part in name for part in spatial))
        self._statistics = clip_statistics
        self._patch_px: int = visual.patch_size[0]
        depth, width = len(visual.transformer.resblocks), visual.conv1.out_channels
        self._skips = (max(1, depth // 3),) if conv_stem else (0, max(1, depth // 3))
        # A buffer, so that what was trained needs no text side any more.
        self.text: Tensor
        self.register_buffer("text", normalize(text.float(), dim=-1))
        assert len(text) == num_classes
        self.entry = nn.Conv2d(1, _WIDTH, kernel_size=7, padding=3)
        self.pyramid = _Pyramid(_WIDTH)
        self.text_projection = nn.Sequential(nn.Linear(text.shape[1], _TEXT_WIDTH), nn.ReLU())
        self.class_attention = nn.ModuleList([_ClassAttention() for _ in range(2)])
        fine_in, fine = (256, _CONV_SKIP) if conv_stem else (width, _FINE_SKIP)
        self.skips = nn.ModuleList([_skip(width, _DEEP_SKIP), _skip(fine_in, fine)])
        self.ups = nn.ModuleList([_Up(_WIDTH, _DEEP_SKIP, _MIDDLE), _Up(_MIDDLE, fine, _LAST)])
        self.classifier = nn.Conv2d(_LAST, 1, kernel_size=3, padding=1)

    def encoder_blocks(self) -> Sequence[nn.Module]:
        """The ViT's blocks."""
        return list(self._visual.transformer.resblocks)

    def encode(self, images: Tensor) -> list[Tensor]:
        """A fine skip, a deep one of the ViT's width, and the embedding in CLIP's joint space.

        Skips of the ViT are the value paths of its blocks (MaskCLIP's attention), with their
        feed-forward networks; the embedding is MaskCLIP's.
        """
        images = fitted(images, self._patch_px)
        visual, blocks = self._visual, self._visual.transformer.resblocks
        tokens, rows = self._tokens(images), images.shape[-2] // self._patch_px
        features = [self.encoder["conv"](images)[0]] if "conv" in self.encoder else []
        for position, block in enumerate(blocks[:-1]):
            if position in self._skips:
                features.append(_as_map(attended_otherwise(block, tokens, MASKCLIP), rows))
            tokens = block(tokens)
        tokens = attended_otherwise(blocks[-1], tokens, MASKCLIP)
        if len(blocks) - 1 in self._skips:
            features.append(_as_map(tokens, rows))
        embedding = _as_map(visual.ln_post(tokens) @ visual.proj, rows)
        return [*features, normalize(embedding, dim=1)]

    def fuse(self, features: list[Tensor]) -> Tensor:
        """Maps (N, C 32, 4 h, 4 w), four a patch and side; those of a class stand together."""
        fine, deep, embedding = features
        scores = torch.einsum("ndhw,cd->nchw", normalize(embedding, dim=1), self.text)
        count, classes = scores.shape[:2]
        maps: Tensor = self.pyramid(self.entry(scores.flatten(0, 1)[:, None]))
        text = self.text_projection(self.text)
        maps = torch.unflatten(maps, 0, (count, classes))
        for attend in self.class_attention:
            maps = attend(maps, text)
        maps = maps.flatten(0, 1)
        for up, project, skip in zip(self.ups, self.skips, (deep, fine), strict=True):
            maps = up(maps, project(skip))
        return torch.unflatten(maps, 0, (count, classes)).flatten(1, 2)

    def classify(self, maps: Tensor, size: tuple[int, int]) -> Tensor:
        """Logits, a class at a time, resized to what the encoder saw and then to the images."""
        per_class = torch.unflatten(maps, 1, (len(self.text), _LAST)).flatten(0, 1)
        logits = torch.unflatten(self.classifier(per_class), 0, (len(maps), -1)).squeeze(2)
        seen = nearest_multiples(size, self._patch_px)
        return resized(resized(logits, seen, align_corners=False), size, align_corners=False)

    @property
    def _visual(self) -> Visual:
        return self.encoder["clip"]

    def _tokens(self, images: Tensor) -> Tensor:
        """Class token and patches with their positions, (N, 1 + h w, F)."""
        visual, positions = self._visual, self._visual.positional_embedding
        if self._statistics is not None:
            images = renormalized(images, self._statistics)
        patches = visual.conv1(images)
        grid = patches.shape[-2:]
        if tuple(grid) != visual.grid_size:
            own = positions[1:].T.unflatten(1, visual.grid_size)[None]
            own = interpolate(own, grid, mode="bicubic", align_corners=False)
            positions = torch.cat([positions[:1], own[0].flatten(1).T])
        first = visual.class_embedding.expand(len(images), 1, -1)
        tokens = torch.cat([first, patches.flatten(2).transpose(1, 2)], dim=1) + positions
        normed: Tensor = visual.ln_pre(tokens)
        return normed


class _Pyramid(nn.Module):
    """Atrous spatial pyramid pooling (arXiv 1706.05587) with GroupNorm, added to what came in."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.near = _block(width, width, kernel_size=1)
        self.far = nn.ModuleList([_block(width, width, dilation=rate) for rate in (6, 12, 18)])
        self.whole = nn.Sequential(nn.AdaptiveAvgPool2d(1), _block(width, width, kernel_size=1))
        self.project = _block(5 * width, width, kernel_size=1)

    def forward(self, maps: Tensor) -> Tensor:
        whole = self.whole(maps).expand_as(maps)
        parts = [self.near(maps), *(far(maps) for far in self.far), whole]
        projected: Tensor = self.project(torch.cat(parts, dim=1))
        return maps + projected


class _ClassAttention(nn.Module):
    """Attention between the classes and their text embeddings, at each location of pooled maps."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(
            _WIDTH + _TEXT_WIDTH, _HEADS, 4 * _WIDTH, 0.0, "gelu", batch_first=True, norm_first=True
        )

    def forward(self, maps: Tensor, text: Tensor) -> Tensor:
        """Maps (N, C, F, h, w) and (C, T) to maps (N, C, F, h, w)."""
        count, classes, _, height, width = maps.shape
        pooled = avg_pool2d(maps.flatten(0, 1), (min(_POOL, height), min(_POOL, width)))
        rows, columns = pooled.shape[-2:]
        # (N, C, F, r, c) to sequences over the classes, (N r c, C, F).
        places = torch.unflatten(pooled, 0, (count, classes)).permute(0, 3, 4, 1, 2).flatten(0, 2)
        named = torch.cat([places, text.expand(len(places), -1, -1)], dim=2)
        attended = self.layer(named)[..., :_WIDTH]
        back = (
            torch.unflatten(attended, 0, (count, rows, columns))
            .permute(0, 3, 4, 1, 2)
            .flatten(0, 1)
        )
        larger = interpolate(back, (height, width), mode="bilinear", align_corners=True)
        return maps + torch.unflatten(larger, 0, (count, classes))


class _Up(nn.Module):
    """Twice the resolution, and a skip that all classes share."""

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(in_channels, in_channels - skip_channels, 2, stride=2)
        self.merge = nn.Sequential(
            _block(in_channels, out_channels), _block(out_channels, out_channels)
        )

    def forward(self, maps: Tensor, skip: Tensor) -> Tensor:
        """Maps (N C, F, h, w) and a skip (N, S, ., .) to maps at twice their size."""
        larger = self.up(maps)
        own = resized(skip, larger.shape[-2:], align_corners=True)
        own = own.repeat_interleave(len(maps) // len(skip), dim=0)
        merged: Tensor = self.merge(torch.cat([larger, own], dim=1))
        return merged


def _block(
    in_channels: int, out_channels: int, kernel_size: int = 3, dilation: int = 1
) -> nn.Sequential:
    padding = dilation * (kernel_size // 2)
    return nn.Sequential(
        nn.Conv2d(
            in_channels, out_channels, kernel_size, padding=padding, dilation=dilation, bias=False
        ),
        nn.GroupNorm(out_channels // 16, out_channels),
        nn.ReLU(inplace=True),
    )


def _skip(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1), nn.ReLU())


def _as_map(tokens: Tensor, rows: int) -> Tensor:
    """Class token and patches (N, 1 + h w, F) to the patches' map (N, F, h, w)."""
    return torch.unflatten(tokens[:, 1:].transpose(1, 2), 2, (rows, -1))
