"""What labelers that ask a CLIP share: probabilities of every class at every pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.section import Facts
from pipeline.vocabulary import IGNORE
from stages.pseudolabel.clip_weights import SANDBOX, ClipConfig
from stages.pseudolabel.labelers.base import Labeler

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from torch import Tensor

    from stages.pseudolabel.pseudo_labels import ImageBatch, PseudoLabels


class ClipLabeler(Labeler):
    """Labels each pixel by its most probable class.

    Subclasses set `Config`, a `ClipConfig`, and may override `refined`.
    """

    config: ClipConfig

    def weights_facts(self) -> Facts:
        """See `Labeler.weights_facts`."""
        return self.config.weights_facts()

    def warnings(self) -> list[str]:
        """See `Labeler.warnings`: where the sandbox's CLIP is asked about other things."""
        ignorance = (
            "the sandbox's CLIP, which was trained on drawn scenes and knows nothing of real "
            "photos, so that its labels of photos are near chance"
        )
        if self.config.stands_in:
            missing = f"{self.config.weights} is missing, its stand-in is {ignorance}"
            return [f"{missing}; {self.config.how_to_fetch()}"]
        if self.config.model == SANDBOX and self.vocabulary.name != SANDBOX:
            return [f"vocabulary {self.vocabulary.name} is asked of {ignorance}; use another model"]
        return []

    def load(self, device: torch.device) -> None:
        """See `Labeler.load`; it also embeds the vocabulary."""
        from stages.pseudolabel.clip import load_clip
        from stages.pseudolabel.text import channels, embed

        self._channels = channels(self.vocabulary)
        model, weights = self.config.chosen()
        self._clip = load_clip(model, weights, window_px=self.config.window_px, device=device)
        self._concepts = embed(self._clip, self._channels.concepts, self.vocabulary.templates)

    def label(self, images: ImageBatch) -> PseudoLabels:
        """See `Labeler.label`; confidence is the probability of the class."""
        import torch

        from stages.pseudolabel.pseudo_labels import PseudoLabels

        device = self._concepts.device
        count, _, *canvas = images.pixels.shape
        mask = torch.full((count, *canvas), IGNORE, device=device)
        confidence = torch.zeros(count, *canvas, device=device)
        values = torch.tensor(self._channels.values, device=device)
        for index, dense in enumerate(self.dense_probabilities(images)):
            best, channel = self.refined(dense, images, index).max(0)
            label = values[channel]
            kept = (label != IGNORE) & (best >= self.config.threshold)
            height, width = images.sizes[index]
            image = (index, slice(height), slice(width))
            mask[image] = label.where(kept, IGNORE)
            confidence[image] = best.clamp(max=1).where(kept, 0)
        return PseudoLabels(mask, confidence)

    def refined(self, dense: Tensor, images: ImageBatch, index: int) -> Tensor:
        """What else is known about an image, worked into its probabilities.

        Args:
            dense: (C, H, W) float, probabilities of the channels.
            images: The batch.
            index: Which of its images.

        Returns:
            (C, H, W) float; here as they came.
        """
        return dense

    def dense_probabilities(self, images: ImageBatch) -> Iterator[Tensor]:
        """(C, H, W) float of each image in turn, a channel a class, summing to 1 over C."""
        from stages.pseudolabel.windows import sliding_scores

        canvases = zip(images.pixels.to(self._concepts.device), images.sizes, strict=True)
        scores = sliding_scores(
            [self._scaled(pixels[:, :height, :width]) for pixels, (height, width) in canvases],
            self._window_scores,
            window_px=self.config.window_px,
            stride_px=self.config.stride_px,
            batch_size=self.config.batch_size,
        )
        scale = self.config.logit_scale or self._clip.logit_scale
        for size, cosines in zip(images.sizes, scores, strict=True):
            probabilities = (scale * cosines).softmax(0)
            if probabilities.shape[1:] != size:
                probabilities = _resized(probabilities, size)
            yield probabilities

    def _scaled(self, image: Tensor) -> Tensor:
        """(3, H, W) uint8 to normalised float, at the size at which windows are cut."""
        from stages.pseudolabel.windows import scaled_size

        normal = self._clip.normalize(image)
        if self.config.short_side_px is None:
            return normal
        height, width = image.shape[-2:]
        return _resized(normal, scaled_size(height, width, self.config.short_side_px))

    def _window_scores(self, windows: Tensor) -> Tensor:
        """(N, 3, H, W) windows to (N, C, h, w) cosines with each channel's best concept.

        The maximum is taken here, before any resizing: between a place of one concept and a place
        of another the class is as sure as at either, where blending concept by concept would dip,
        and a map for each class is all that need be kept.
        """
        features = self._clip.dense_features(windows)
        cosines = features.movedim(1, -1) @ self._concepts.T
        return self._channels.class_scores(cosines).movedim(-1, 1)


def _resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    from torch.nn import functional as F

    return F.interpolate(image[None], size, mode="bilinear", antialias=True)[0]
