"""DPT (arXiv 2103.13413) on a plain ViT, as UniMatch V2 has it on DINOv2 (arXiv 2410.10777)."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from timm.models import VisionTransformer
from torch import Tensor, nn
from torch.nn.functional import interpolate

from stages.models.segmenters.networks.base import SegmentationNetwork
from stages.models.segmenters.resizing import fitted, nearest_multiples, resized

Vit: TypeAlias = Any
"""A VisionTransformer or Eva of timm, a torch module; it publishes no types."""

_TAPS = {24: (4, 11, 17, 23)}
"""Blocks that are read, by depth; where it does not stand here, the last one of each quarter."""

_WIDTHS = {1024: (256, 256, 512, 1024, 1024), 1536: (384, 1536, 1536, 1536, 1536)}
"""Width of the decoder and those of its projections, by the encoder's (ViT-L and ViT-g)."""

_OFFSET = 0.1
"""DINO and DINOv2 add this to the grid before dividing, so that rounding down loses no cell."""


class DPT(SegmentationNetwork):
    """Four levels of a ViT, projected, brought to four resolutions and fused from the deepest on.

    Images are resized to multiples of the patch, and logits back.

    Args:
        num_classes: Number of classes C.
        encoder: A plain ViT of timm that takes images of any size; its width is F.
    """

    encoder: Vit

    def __init__(self, num_classes: int, encoder: Vit) -> None:
        super().__init__()
        self.encoder = encoder
        width, depth = encoder.embed_dim, len(encoder.blocks)
        self._patch_px: int = encoder.patch_embed.patch_size[0]
        self._taps = _TAPS.get(depth, tuple((k + 1) * depth // 4 - 1 for k in range(4)))
        features, *levels = _WIDTHS.get(
            width, (width // 6, width // 8, width // 4, width // 2, width)
        )
        self.projections = nn.ModuleList([nn.Conv2d(width, own, kernel_size=1) for own in levels])
        self.resizings = nn.ModuleList(
            [
                nn.ConvTranspose2d(levels[0], levels[0], kernel_size=4, stride=4),
                nn.ConvTranspose2d(levels[1], levels[1], kernel_size=2, stride=2),
                nn.Identity(),
                nn.Conv2d(levels[3], levels[3], kernel_size=3, stride=2, padding=1),
            ]
        )
        self.entries = nn.ModuleList(
            [nn.Conv2d(own, features, kernel_size=3, padding=1, bias=False) for own in levels]
        )
        # The deepest is fused with nothing; it has the unit for what it would be fused with in the
        # published network too, without a gradient, and so it has none here.
        self.fusions = nn.ModuleList([_Fusion(features, is_deepest=k == 3) for k in range(4)])
        self.smooth = nn.Sequential(
            nn.Conv2d(features, features, kernel_size=3, padding=1), nn.ReLU(inplace=True)
        )
        self.classifier = nn.Conv2d(features, num_classes, kernel_size=1)

    def encoder_blocks(self) -> Sequence[nn.Module]:
        """The ViT's blocks."""
        return list(self.encoder.blocks)

    def encode(self, images: Tensor) -> list[Tensor]:
        """The patches after four blocks (N, F, h, w), a location a patch, finally normalized."""
        images = self.as_pretrained(fitted(images, self._patch_px))
        vit = self.encoder
        if not _has_dino_positions(vit):
            # Registers came with positions resized plainly, rotary embeddings need no resizing.
            found: list[Tensor] = vit.forward_intermediates(
                images, indices=list(self._taps), norm=True, intermediates_only=True
            )
            return found
        tokens = _dino_tokens(vit, images)
        rows = images.shape[-2] // self._patch_px
        features = []
        for position, block in enumerate(vit.blocks):
            tokens = block(tokens)
            if position in self._taps:
                patches = vit.norm(tokens)[:, 1:]
                features.append(patches.transpose(1, 2).unflatten(2, (rows, -1)))
        return features

    def fuse(self, features: list[Tensor]) -> Tensor:
        """Maps (N, F, 8 h, 8 w), eight a patch and side."""
        parts = zip(features, self.projections, self.resizings, self.entries, strict=True)
        levels = [entry(resize(project(own))) for own, project, resize, entry in parts]
        maps: Tensor | None = None
        for position in reversed(range(len(levels))):
            size = levels[position - 1].shape[-2:] if position else None
            maps = self.fusions[position](levels[position], maps, size)
        smooth: Tensor = self.smooth(maps)
        return smooth

    def classify(self, maps: Tensor, size: tuple[int, int]) -> Tensor:
        """Logits, resized to the size that the encoder saw and then to the images'."""
        seen = nearest_multiples(size, self._patch_px)
        return resized(
            resized(self.classifier(maps), seen, align_corners=True), size, align_corners=True
        )


class _ResidualUnit(nn.Module):
    """Two convolutions with their ReLUs before them, added to what came in."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features, features, kernel_size=3, padding=1)
        self.conv2 = nn.Conv2d(features, features, kernel_size=3, padding=1)

    def forward(self, maps: Tensor) -> Tensor:
        inner: Tensor = self.conv2(self.conv1(maps.relu()).relu())
        return maps + inner


class _Fusion(nn.Module):
    """RefineNet's fusion block (arXiv 1611.06612) as DPT has it, without BatchNorm."""

    def __init__(self, features: int, *, is_deepest: bool) -> None:
        super().__init__()
        self.level = nn.Identity() if is_deepest else _ResidualUnit(features)
        self.both = _ResidualUnit(features)
        self.out = nn.Conv2d(features, features, kernel_size=1)

    def forward(self, level: Tensor, deeper: Tensor | None, size: Sequence[int] | None) -> Tensor:
        """Fuses a level with the maps of the deeper ones.

        Args:
            level: (N, F, h, w).
            deeper: (N, F, h, w), what the fusion before this one gave; None in the deepest.
            size: Of what it gives; default: 2 h and 2 w.
        """
        maps = level if deeper is None else deeper + self.level(level)
        maps = self.both(maps)
        scale = None if size is not None else 2
        larger = interpolate(maps, size, scale, mode="bilinear", align_corners=True)
        out: Tensor = self.out(larger)
        return out


def _has_dino_positions(vit: Vit) -> bool:
    """Whether positions are learned, for the class token too, and there are no registers."""
    if not isinstance(vit, VisionTransformer) or vit.pos_embed is None:
        return False
    return vit.cls_token is not None and vit.num_prefix_tokens == 1 and not vit.no_embed_class


def _dino_tokens(vit: Vit, images: Tensor) -> Tensor:
    """Class token and patches with their positions, (N, 1 + h w, F)."""
    patches = vit.patch_embed(images)
    positions = vit.pos_embed
    grid, learned = patches.shape[1:3], vit.patch_embed.grid_size
    if tuple(grid) != tuple(learned):
        own = positions[:, 1:].float().transpose(1, 2).unflatten(2, learned)
        # Of a traced network, sizes are tensors.
        scale = [(int(new) + _OFFSET) / old for new, old in zip(grid, learned, strict=True)]
        own = interpolate(own, scale_factor=scale, mode="bicubic")
        own = own.flatten(2).transpose(1, 2).to(positions.dtype)
        positions = torch.cat([positions[:, :1], own], dim=1)
    first = vit.cls_token.expand(images.shape[0], -1, -1)  # `len` is a constant of a trace
    tokens: Tensor = torch.cat([first, patches.flatten(1, 2)], dim=1) + positions
    normed: Tensor = vit.norm_pre(tokens)
    return normed
