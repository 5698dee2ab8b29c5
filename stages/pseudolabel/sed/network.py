"""The SED network: a ConvNeXt CLIP of open_clip as hierarchical encoder, and the decoder."""

from typing import Any

import open_clip
from open_clip.timm_model import TimmModel
from PIL import Image
from timm.models.convnext import ConvNeXt
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.errors import ConfigError
from stages.models.clip.towers import location_features
from stages.pseudolabel.pixels.byte_resize import pillow
from stages.pseudolabel.sed.decoder import GradualFusionDecoder

_SHORT_PX, _LONG_PX, _INPUT_PX = 640, 2560, 768


class Sed(nn.Module):
    """Scores any list of texts at every location of an image.

    Args:
        clip: The CLIP; its image encoder must be a ConvNeXt.

    Raises:
        ConfigError: The image encoder is another network.
    """

    def __init__(self, clip: open_clip.CLIP) -> None:
        super().__init__()
        if not (isinstance(clip.visual, TimmModel) and isinstance(clip.visual.trunk, ConvNeXt)):
            fix = "use convnext_large_d_320 (SED-L) or convnext_base_w_320 (SED-B)"
            raise ConfigError("SED needs a ConvNeXt image encoder", where="model", fix=fix)
        self.clip_model = clip
        stages: list[dict[str, Any]] = clip.visual.trunk.feature_info
        channels = [stage["num_chs"] for stage in stages]
        self.transformer = GradualFusionDecoder(channels[-2::-1])

    def forward(self, image: Tensor, texts: Tensor, topk: int | None = None) -> Tensor:
        """Scores every text at every location.

        Args:
            image: (3, S, S) float, normalised, S a multiple of 32; published: 768.
            texts: (T, 80, D) float, see `GradualFusionDecoder`.
            topk: Early rejection, see `GradualFusionDecoder.forward`.

        Returns:
            (T, S/4, S/4) float in [0, 1].
        """
        visual = self.clip_model.visual
        last, maps = visual.trunk.forward_intermediates(image[None])
        dense = location_features(visual, last)[0]
        scores: Tensor = self.transformer(dense, [one[0] for one in maps[-2::-1]], texts, topk)
        return scores


def fitted(image: Tensor, input_px: int) -> Tensor:
    """Resizes an image for SED: to `resized_size` by Pillow, then stretched to a square.

    Args:
        image: (3, H, W) uint8.
        input_px: S.

    Returns:
        (3, S, S) float in [0, 255].
    """
    size = resized_size(image.shape[1], image.shape[2], input_px)
    resized = pillow(image, size, Image.Resampling.BILINEAR)[None].float()
    return F.interpolate(resized, (input_px, input_px), mode="bilinear")[0]


def resized_size(height_px: int, width_px: int, input_px: int) -> tuple[int, int]:
    """The intermediate size, (height, width): short side 640, but long side at most 2560.

    These sizes are for a square of 768 pixels; they scale with `input_px`. The order of operations
    is detectron2's, which decides on halves of a pixel.
    """
    short_px, long_px = (side * input_px / _INPUT_PX for side in (_SHORT_PX, _LONG_PX))
    short = min(height_px, width_px)
    sides = [
        short_px if side == short else short_px / short * side for side in (height_px, width_px)
    ]
    if max(sides) > long_px:
        sides = [side * (long_px / max(sides)) for side in sides]
    height, width = (max(1, int(side + 0.5)) for side in sides)
    return height, width
