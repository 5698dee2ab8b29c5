"""A step of SED's gradual fusion: refines maps, doubles their size, and adds guidance."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from stages.pseudolabel.sed.class_attention import ClassAttention

_KERNEL = 9
_CHANNELS_A_GROUP = 16

# Classes are independent outside the attention; chunks keep the memory constant for any number.
_CLASSES_AT_ONCE = 32


def by_class(module: Callable[..., Tensor], *maps: Tensor) -> Tensor:
    """Runs a module over (T, ...) maps in chunks of classes; the result is the same."""
    parts = zip(*(torch.split(one, _CLASSES_AT_ONCE) for one in maps), strict=True)
    return torch.cat([module(*part) for part in parts])


class _ConvNextBlock(nn.Module):
    """A block of ConvNeXt (arXiv 2201.03545) with a wide kernel, (N, C, H, W) to the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, _KERNEL, padding=_KERNEL // 2, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.pwconv1 = nn.Linear(channels, 4 * channels)
        self.act = nn.GELU()
        self.pwconv2 = nn.Linear(4 * channels, channels)
        self.gamma = nn.Parameter(torch.ones(channels))

    def forward(self, maps: Tensor) -> Tensor:
        inner = self.norm(self.dwconv(maps).movedim(1, -1))
        inner = self.gamma * self.pwconv2(self.act(self.pwconv1(inner)))
        refined: Tensor = maps + inner.movedim(-1, 1)
        return refined


class _DoubleConv(nn.Module):
    """Two 3 x 3 convolutions, each with group norm and ReLU."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        groups = out // _CHANNELS_A_GROUP
        self.double_conv = nn.Sequential(
            nn.Conv2d(channels, out, 3, padding=1, bias=False),
            nn.GroupNorm(groups, out),
            nn.ReLU(),
            nn.Conv2d(out, out, 3, padding=1, bias=False),
            nn.GroupNorm(groups, out),
            nn.ReLU(),
        )

    def forward(self, maps: Tensor) -> Tensor:
        convolved: Tensor = self.double_conv(maps)
        return convolved


class FusionBlock(nn.Module):
    """Maps of every class to maps of twice the size; modules are named as in the checkpoints.

    Args:
        channels: C of the input maps.
        out: C' of the output maps.
        guides: G, channels of the image's guidance and of the cost volume's guidance.
    """

    def __init__(self, channels: int, out: int, guides: int) -> None:
        super().__init__()
        self.cnext = _ConvNextBlock(channels)
        self.attention = ClassAttention(channels)
        self.up = nn.ConvTranspose2d(channels, channels - guides, 2, stride=2)
        self.conv = _DoubleConv(channels + guides, out)

    def forward(self, maps: Tensor, image: Tensor, cost: Tensor) -> Tensor:
        """Fuses maps with their guidance.

        Args:
            maps: (T, C, H, W) float.
            image: (1, G, 2H, 2W) float, the image's guidance, shared by all classes.
            cost: (T, G, 2H, 2W) float, the cost volume's guidance.

        Returns:
            (T, C', 2H, 2W) float.
        """
        refined = self.attention(by_class(self.cnext, maps))
        return by_class(partial(self._fuse, image), refined, cost)

    def _fuse(self, image: Tensor, maps: Tensor, cost: Tensor) -> Tensor:
        guides = image.expand(len(maps), -1, -1, -1)
        fused: Tensor = self.conv(torch.cat([self.up(maps), guides, cost], 1))
        return fused
