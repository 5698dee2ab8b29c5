"""U-Net (arXiv 1505.04597) on any encoder, with the decoder of segmentation_models_pytorch."""

from collections.abc import Sequence

from segmentation_models_pytorch.base.initialization import initialize_decoder, initialize_head
from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder
from torch import Tensor, nn
from torch.nn.functional import interpolate

from stages.models.segmenters.networks.base import SegmentationNetwork

_WIDTHS = (256, 128, 64, 32, 16)


class UNet(SegmentationNetwork):
    """An encoder of five levels, and a decoder that reads all of them.

    Args:
        num_classes: Number of classes C.
        encoder: One of segmentation_models_pytorch: images (N, 3, H, W) to a list of features of
            `out_channels` channels at strides 1, 2, 4, ..., the first the images themselves.
    """

    def __init__(self, num_classes: int, encoder: nn.Module) -> None:
        super().__init__()
        channels = encoder.out_channels
        assert isinstance(channels, Sequence)
        self.encoder = encoder
        self.decoder = UnetDecoder(channels, _WIDTHS, n_blocks=len(_WIDTHS))
        self.classifier = nn.Conv2d(_WIDTHS[-1], num_classes, kernel_size=3, padding=1)
        initialize_decoder(self.decoder)
        initialize_head(self.classifier)

    def encode(self, images: Tensor) -> list[Tensor]:
        """Features at strides 2, 4, 8, 16 and 32."""
        features: list[Tensor] = self.encoder(self.as_pretrained(images))
        return features[1:]

    def fuse(self, features: list[Tensor]) -> Tensor:
        """Maps at stride 1, a pixel larger than images of an odd size."""
        count, _, height, width = features[0].shape
        # The library's decoder needs only the size of the images.
        images = features[0].new_empty(count, 0, 2 * height, 2 * width)
        maps: Tensor = self.decoder([images, *features])
        return maps

    def classify(self, maps: Tensor, size: tuple[int, int]) -> Tensor:
        """Logits at stride 1, resized to the images' size."""
        logits: Tensor = self.classifier(maps)
        if logits.shape[-2:] == size:
            return logits
        return interpolate(logits, size, mode="bilinear", align_corners=False)
