"""Attention among classes, separately at each location."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_HEADS = 4
_EPSILON = 1e-6

# Locations are independent here; chunks keep the memory constant at any resolution.
_LOCATIONS_AT_ONCE = 2048


def linear_attention(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attention in linear time in T (arXiv 2006.16236, equation 5), with phi = elu + 1.

    Args:
        queries: (N, T, heads, D) float.
        keys: (N, T, heads, D) float.
        values: (N, T, heads, D) float.

    Returns:
        (N, T, heads, D) float, phi(Q) (phi(K)^T V) / (phi(Q) . sum phi(K) + 1e-6).
    """
    queries, keys = F.elu(queries) + 1, F.elu(keys) + 1
    summed = torch.einsum("nthd,nthe->nhde", keys, values)
    norms = torch.einsum("nthd,nhd->nth", queries, keys.sum(1)) + _EPSILON
    return torch.einsum("nthd,nhde->nthe", queries, summed) / norms[..., None]


class _Projections(nn.Module):
    """Linear attention with query, key and value projections, and no output projection."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.q = nn.Linear(channels, channels)
        self.k = nn.Linear(channels, channels)
        self.v = nn.Linear(channels, channels)

    def forward(self, classes: Tensor) -> Tensor:
        heads = (self.q(classes), self.k(classes), self.v(classes))
        split = (head.unflatten(-1, (_HEADS, -1)) for head in heads)
        return linear_attention(*split).flatten(-2)


class ClassAttention(nn.Module):
    """A residual transformer layer over the class axis.

    As published, training pools the maps 2 x 2 and inference does not.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attention = _Projections(channels)
        self.MLP = nn.Sequential(  # named as in the checkpoints
            nn.Linear(channels, 4 * channels), nn.ReLU(), nn.Linear(4 * channels, channels)
        )
        self.norm1 = nn.LayerNorm(channels)
        self.norm2 = nn.LayerNorm(channels)

    def forward(self, maps: Tensor) -> Tensor:
        """(T, C, H, W) float to the same shape."""
        locations = maps.flatten(2).permute(2, 0, 1)  # (H W, T, C)
        parts = torch.split(locations, _LOCATIONS_AT_ONCE)
        attended = torch.cat([self._layer(classes) for classes in parts])
        return maps + attended.permute(1, 2, 0).reshape(maps.shape)

    def _layer(self, classes: Tensor) -> Tensor:
        """(N, T, C) to the same shape."""
        classes = classes + self.attention(self.norm1(classes))
        refined: Tensor = classes + self.MLP(self.norm2(classes))
        return refined
