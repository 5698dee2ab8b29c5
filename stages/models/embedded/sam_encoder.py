"""The image encoder of the tiny SAM: a small convolutional feature pyramid."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


def _convolution(inputs: int, outputs: int, kernel_px: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel_px, stride, kernel_px // 2, bias=False),
        nn.BatchNorm2d(outputs),
    )


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions with a skip connection (He et al. 2016, figure 2).

    Args:
        width: Channels in and out.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = _convolution(width, width), _convolution(width, width)

    def forward(self, features: Tensor) -> Tensor:
        """(B, width, H, W) to the same shape."""
        residual: Tensor = self.second(functional.relu(self.first(features)))
        return functional.relu(features + residual)


class PyramidEncoder(nn.Module):
    """A feature pyramid (Lin et al. 2017, section 3) whose output has stride 8.

    It goes down to stride 16 and back up to stride 4; a last convolution computes the embedding.
    It replaces segment_anything's ViT: `Sam` reads an encoder's `img_size` and calls it.

    Args:
        img_size: Side of the square images, a multiple of 16; segment_anything requires the name.
        widths: Channels at strides 2, 4, 8, 16.
        depths: Residual blocks at each of them.
        pyramid_width: Channels on the way back up.
        embed_dim: C of the embedding.
    """

    def __init__(
        self,
        *,
        img_size: int,
        widths: Sequence[int],
        depths: Sequence[int],
        pyramid_width: int,
        embed_dim: int,
    ) -> None:
        super().__init__()
        self.img_size = img_size
        inputs = (3, *widths[:-1])
        self.stages = nn.ModuleList(
            nn.Sequential(
                _convolution(before, after, stride=2),
                nn.ReLU(),
                *(ResidualBlock(after) for _ in range(depth)),
            )
            for before, after, depth in zip(inputs, widths, depths, strict=True)
        )
        self.laterals = nn.ModuleList(
            _convolution(width, pyramid_width, kernel_px=1) for width in widths[1:]
        )
        self.smooth = nn.ModuleList(
            _convolution(pyramid_width, pyramid_width) for _ in self.laterals
        )
        self.to_embedding = _convolution(pyramid_width, embed_dim, stride=2)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) float, normalised, to (B, C, S/8, S/8)."""
        levels = []
        features = images
        for stage in self.stages:
            features = stage(features)
            levels.append(features)
        above: Tensor | None = None
        for level, lateral, smooth in zip(
            reversed(levels[1:]), reversed(self.laterals), reversed(self.smooth), strict=True
        ):
            merged = lateral(level)
            if above is not None:
                merged = merged + functional.interpolate(above, merged.shape[2:], mode="bilinear")
            above = functional.relu(smooth(functional.relu(merged)))
        embedding: Tensor = self.to_embedding(above)
        return embedding.contiguous(memory_format=torch.contiguous_format)
