"""SED's decoder: turns cosines of locations and texts into a score per class and pixel."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stages.models.finite import finite_scores
from stages.pseudolabel.sed.fusion import FusionBlock, by_class

TEMPLATES = 80
_CHANNELS = (128, 64, 32, 16)
_GUIDES = (32, 16, 8)


def cost_volume(image: Tensor, texts: Tensor) -> Tensor:
    """Cosines of every location with every text in every template, without a temperature.

    Args:
        image: (D, h, w) float.
        texts: (T, P, D) float.

    Returns:
        (T, P, h, w) float in [-1, 1].
    """
    image, texts = F.normalize(image, dim=0), F.normalize(texts, dim=-1)
    return torch.einsum("dhw,tpd->tphw", image, texts)


def survivors(logits: Tensor, topk: int) -> Tensor:
    """Category early rejection: the classes among the best of at least one pixel.

    Args:
        logits: (T, 1, H, W) float.
        topk: How many classes of a pixel count as the best; T or more keep all.

    Returns:
        (t,) int64, positions in T, ascending.
    """
    best = logits.topk(min(topk, len(logits)), dim=0).indices
    found: Tensor = torch.unique(best)
    return found


class GradualFusionDecoder(nn.Module):
    """Three steps from stride 32 to stride 4, guided by image features and the cost volume.

    Modules are named as in the official checkpoints: 115 tensors.

    Args:
        guide_channels: Channels of the image features at strides 16, 8 and 4.
    """

    def __init__(self, guide_channels: Sequence[int]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(TEMPLATES, _CHANNELS[0], 7, padding=3)
        self.decoder_guidance_projection = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, guides, 3, padding=1), nn.ReLU())
            for channels, guides in zip(guide_channels, _GUIDES, strict=True)
        )
        self.decoder_corr_guidance_projection = nn.ModuleList(
            nn.Sequential(nn.ConvTranspose2d(channels, guides, 2, stride=2), nn.ReLU())
            for channels, guides in zip((TEMPLATES, *_GUIDES[:-1]), _GUIDES, strict=True)
        )
        self.decoder1 = FusionBlock(_CHANNELS[0], _CHANNELS[1], _GUIDES[0])
        self.decoder2 = FusionBlock(_CHANNELS[1], _CHANNELS[2], _GUIDES[1])
        self.decoder3 = FusionBlock(_CHANNELS[2], _CHANNELS[3], _GUIDES[2])
        self.head0, self.head1, self.head2, self.head = (
            nn.Conv2d(channels, 1, 3, padding=1) for channels in _CHANNELS
        )

    def forward(
        self, image: Tensor, guides: Sequence[Tensor], texts: Tensor, topk: int | None = None
    ) -> Tensor:
        """Scores one image; early rejection needs one image at a time.

        Args:
            image: (D, h, w) float, the dense embedding at stride 32.
            guides: Image features at strides 16, 8 and 4: (C, 2h, 2w) and so on.
            texts: (T, 80, D) float, each text in the 80 templates, in their published order.
            topk: Before each step, keep the classes that an auxiliary head ranks among the best
                `topk` at any location; None keeps all.

        Returns:
            (T, 8h, 8w) float in [0, 1], independent scores; 0 for rejected classes.
        """
        cost = cost_volume(image, texts)
        maps = by_class(self.conv1, cost)
        kept = torch.arange(len(texts), device=texts.device)
        steps = zip(
            (self.head0, self.head1, self.head2),
            self.decoder_corr_guidance_projection,
            self.decoder_guidance_projection,
            guides,
            (self.decoder1, self.decoder2, self.decoder3),
            strict=True,
        )
        for rank, project_cost, project_image, guide, block in steps:
            if topk is not None:
                alive = survivors(by_class(rank, maps), topk)
                kept, maps, cost = kept[alive], maps[alive], cost[alive]
            cost = by_class(project_cost, cost)
            maps = block(maps, project_image(guide[None]), cost)
        found = finite_scores(by_class(self.head, maps)[:, 0]).sigmoid()
        scores = found.new_zeros(len(texts), *found.shape[1:])
        scores[kept] = found
        return scores
