"""The base of CLIP labelers: probabilities of every class at every pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.config.config_section import Facts
from pipeline.config.vocabulary_doubts import asked_for, doubts_of_texts
from pipeline.errors import ConfigError
from stages.models.clip.clip_weights import ClipConfig
from stages.models.embedded.models import CLIP, SANDBOX, knows
from stages.pseudolabel.labelers.base import Labeler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import torch
    from torch import Tensor

    from pipeline.console import Console
    from stages.labels.pseudo_labels import PseudoLabels
    from stages.models.clip.clip import Clip
    from stages.pseudolabel.labelers.base import ImageBatch


_FLAT = 1e-6
"""Range of cosines that is only rounding."""


class ClipLabeler(Labeler):
    """Labels each pixel by its most probable class.

    Subclasses set `Config`, a `ClipConfig`, and may override `refined`.
    """

    config: ClipConfig
    libraries = ("torch", "open_clip_torch", "timm")

    @property
    def resizes(self) -> bool:
        """See `Labeler.resizes`: with a short side of its own."""
        return self.config.short_side_px is not None

    def weights_facts(self) -> Facts:
        """See `Labeler.weights_facts`."""
        return self.config.weights_facts()

    def vocabulary_facts(self) -> Facts:
        """See `Labeler.vocabulary_facts`.

        Raises:
            ConfigError: No class has a concept, or the prompts are stack-80.
        """
        if self.vocabulary.prompts == "stack-80":
            what = "CLIP labelers do not support `prompts: stack-80`"
            where = f"vocabulary {self.vocabulary.name}"
            raise ConfigError(what, where=where, fix="use `prompts: mean-80`")
        return self.vocabulary.prompt_facts()

    def warnings(self) -> list[str]:
        """See `Labeler.warnings`: another world's CLIP, or classes that no concept tells apart."""
        limits = f"{CLIP.limits} (labels of photos are near chance)"
        found = doubts_of_texts(self.vocabulary, has_rest=self._has_rest)
        if self.config.stands_in:
            missing = f"{self.config.weights} is missing, so the stand-in is used"
            return [f"{missing}: {limits}; {self.config.how_to_fetch()}", *found]
        if self.config.model == SANDBOX and not knows(self.vocabulary.name):
            return [f"vocabulary {self.vocabulary.name}: {limits}; use another model", *found]
        return found

    def shows(self) -> frozenset[int]:
        """See `Labeler.shows`."""
        return asked_for(self.vocabulary, has_rest=self._has_rest)

    @property
    def _has_rest(self) -> bool:
        """Whether unsure pixels become background."""
        return self.config.prob_threshold > 0 or self.config.area_threshold is not None

    def rehearse(self, *, downloads: bool) -> None:
        """See `Labeler.rehearse`: the size of windows, the variant, and the length of prompts."""
        import torch

        from stages.models.clip import text

        if downloads or not isinstance(self.config.chosen()[1], str):
            clip = self._load(torch.device("cpu"))
            channels, templates = text.channels(self.vocabulary), text.templates_of(self.vocabulary)
            for prompts in text.prompts(channels, templates):
                clip.check_whole(prompts)

    def fetch(self, console: Console) -> None:
        """See `Labeler.fetch`."""
        model, weights = self.config.chosen()
        if isinstance(model, str) and isinstance(weights, str):
            from stages.models.clip.architectures import fetch_tag

            fetch_tag(model, weights, console)

    def load(self, device: torch.device, cache: Path | None = None) -> None:
        """See `Labeler.load`; also embeds the vocabulary and caches the embeddings."""
        from functools import partial

        import torch

        from stages.models.clip import text
        from stages.models.clip.text_cache import TextCache

        config = self.config
        self.vocabulary_facts()  # fails before the slow part if the vocabulary cannot be used
        self._channels = text.channels(self.vocabulary)
        self._clip = self._load(device)
        features = partial(self._clip.dense_features, dense=config.dense)
        self._features = torch.compile(features) if config.compile else features
        stack = text.embed(
            partial(self._clip.encode_text, normalize=False),
            self._channels,
            text.templates_of(self.vocabulary),
            cache=None if cache is None else TextCache(cache / "texts", config.text_facts()),
        )
        self._queries = text.ensemble(stack).to(device)

    def _load(self, device: torch.device) -> Clip:
        import torch

        from stages.models.clip.clip import load_clip

        model, weights = self.config.chosen()
        return load_clip(
            model,
            weights,
            window_px=self.config.window_px,
            device=device,
            dense=self.config.dense,
            precision=getattr(torch, self.config.precision),
            normalization=self.config.normalization,
        )

    def label(self, images: ImageBatch) -> PseudoLabels:
        """See `Labeler.label`; confidence is the probability of the class."""
        import torch

        from stages.pseudolabel.pixels.classify_pixels import classify_pixels

        config, device = self.config, self._queries.device
        values = torch.tensor(self._channels.values, device=device)
        labels = (
            classify_pixels(
                self.refined(dense, images, index),
                values,
                self.vocabulary.background_id,
                threshold=config.threshold,
                prob_threshold=config.prob_threshold,
                area_threshold=config.area_threshold,
            )
            for index, dense in enumerate(self.dense_probabilities(images))
        )
        return images.place(labels, device)

    def refined(self, dense: Tensor, images: ImageBatch, index: int) -> Tensor:
        """Refines the dense probabilities of an image. Default: returns them unchanged.

        Args:
            dense: (C, H, W) float, probabilities of the channels.
            images: The batch.
            index: Position of the image in the batch.

        Returns:
            (C, H, W) float.
        """
        return dense

    def dense_probabilities(self, images: ImageBatch) -> Iterator[Tensor]:
        """(C, H, W) float in [0, 1] for each image in order, one channel per class.

        They sum to 1 over C, or to less if the softmax is over concepts.
        """
        for size, found in zip(images.sizes, self._maps(images, self._window_scores), strict=True):
            scores = self._of_image(found)
            yield self._softmax(self._at_label(scores, size))

    def dense_features(self, images: ImageBatch) -> Iterator[Tensor]:
        """(D, H, W) float for each image in order, in CLIP's joint space, of length at most 1."""
        for size, found in zip(images.sizes, self._maps(images, self._features), strict=True):
            yield self._at_label(found, size)

    def _maps(self, images: ImageBatch, score: Callable[[Tensor], Tensor]) -> Iterator[Tensor]:
        """(C, h, w) of each image in order, at the size from which its windows are cut.

        Args:
            images: The batch.
            score: Maps windows (N, 3, S, S) to (N, C, coarse, coarse).
        """
        from stages.pseudolabel.pixels.windows import sliding_scores

        return sliding_scores(
            [self._scaled(images, index) for index in range(len(images.sizes))],
            score,
            window_px=self.config.window_px,
            stride_px=self.config.stride_px,
            batch_size=self.config.batch_size,
        )

    def _scaled(self, images: ImageBatch, index: int) -> Tensor:
        """(3, H, W) float: an image, normalised, at the size from which windows are cut."""
        from PIL import Image

        from stages.pseudolabel.pixels.byte_resize import opencv, pillow
        from stages.pseudolabel.pixels.windows import scaled_size

        config, device = self.config, self._queries.device
        short_px = config.short_side_px
        if short_px is None:
            return self._clip.normalize(images.fitted(index).to(device))
        image = images.original(index)
        size = (short_px, short_px)
        if config.fit == "shape":
            height, width = image.shape[-2:]
            size = scaled_size(height, width, short_px, config.long_side_px)
        if config.resize == "bilinear":
            return _resized(self._clip.normalize(image.to(device)), size, antialias=True)
        if config.resize == "opencv":
            image = opencv(image, size)
        else:
            image = pillow(image, size, Image.Resampling.BICUBIC)
        return self._clip.normalize(image.to(device))

    def _at_label(self, maps: Tensor, size: tuple[int, int]) -> Tensor:
        """(C, h, w) maps at the size of the label."""
        return _resized(maps, size, antialias=self.config.resize == "bilinear")

    def _of_image(self, scores: Tensor) -> Tensor:
        """Merged scores of windows, (C, h, w) or of each concept (K, h, w), to those of an image.

        GEM stretches the map of each concept over the whole image, before the best of a class. A
        map without a range becomes 0: it would be noise of rounding.
        """
        import torch

        if self.config.maps == "cosine":
            return scores
        low, high = scores.flatten(1).aminmax(dim=1)
        span = (high - low).where(high - low > _FLAT, torch.inf)
        stretched = (scores - low[:, None, None]) / span[:, None, None]
        return self._scores(stretched, 0)

    def _window_scores(self, windows: Tensor) -> Tensor:
        """(N, 3, H, W) windows to (N, C, h, w) cosines with each channel's best concept.

        With a softmax over classes the maximum is taken here, before resizing: halfway between
        locations of two concepts of a class, the blended maximum stays high, while a maximum of
        blended concepts would dip. It also needs only one map per class. With a softmax over
        concepts, or where maps are stretched, there is one map per concept, (N, K, h, w).
        """
        features = self._features(windows)
        cosines = (features.movedim(1, -1) @ self._queries.T).movedim(-1, 1)
        return cosines if self.config.maps == "min-max" else self._scores(cosines, 1)

    def _scores(self, cosines: Tensor, dim: int) -> Tensor:
        """Cosines of queries to the scores that the softmax takes, along a dimension."""
        return (
            cosines if self.config.softmax_over == "concepts" else self._of_channels(cosines, dim)
        )

    def _softmax(self, scores: Tensor) -> Tensor:
        """Scores to probabilities of channels, along the first dimension."""
        from stages.models.finite import finite_scores

        scale = self.config.logit_scale or self._clip.logit_scale
        probabilities = (scale * finite_scores(scores)).softmax(0)
        if self.config.softmax_over == "concepts":
            return self._of_channels(probabilities)
        return probabilities

    def _of_channels(self, scores: Tensor, dim: int = 0) -> Tensor:
        """Scores of queries to scores of channels, along a dimension."""
        return self._channels.class_scores(scores.movedim(dim, -1)).movedim(-1, dim)


def _resized(maps: Tensor, size: tuple[int, int], *, antialias: bool) -> Tensor:
    from torch.nn import functional as F

    if maps.shape[1:] == size:
        return maps
    return F.interpolate(maps[None], size, mode="bilinear", antialias=antialias)[0]
