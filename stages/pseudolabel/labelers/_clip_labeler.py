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


class ClipLabeler(Labeler):
    """Labels each pixel by its most probable class.

    Subclasses set `Config`, a `ClipConfig`, and may override `refined`.
    """

    config: ClipConfig
    libraries = ("torch", "open_clip_torch", "timm")

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
        yield from map(self._softmax, self._maps(images, self._window_scores))

    def dense_features(self, images: ImageBatch) -> Iterator[Tensor]:
        """(D, H, W) float for each image in order, in CLIP's joint space, of length at most 1."""
        return self._maps(images, self._features)

    def _maps(self, images: ImageBatch, score: Callable[[Tensor], Tensor]) -> Iterator[Tensor]:
        """(C, H, W) for each image in order; `score` maps windows (N, 3, S, S) to (N, C, h, w)."""
        from stages.pseudolabel.pixels.windows import sliding_scores

        canvases = zip(images.pixels.to(self._queries.device), images.sizes, strict=True)
        scores = sliding_scores(
            [self._scaled(pixels[:, :height, :width]) for pixels, (height, width) in canvases],
            score,
            window_px=self.config.window_px,
            stride_px=self.config.stride_px,
            batch_size=self.config.batch_size,
        )
        for size, found in zip(images.sizes, scores, strict=True):
            yield found if found.shape[1:] == size else _resized(found, size)

    def _scaled(self, image: Tensor) -> Tensor:
        """(3, H, W) uint8 to normalised float, at the size from which windows are cut."""
        from stages.pseudolabel.pixels.windows import scaled_size

        normal = self._clip.normalize(image)
        if self.config.short_side_px is None:
            return normal
        height, width = image.shape[-2:]
        return _resized(normal, scaled_size(height, width, self.config.short_side_px))

    def _window_scores(self, windows: Tensor) -> Tensor:
        """(N, 3, H, W) windows to (N, C, h, w) cosines with each channel's best concept.

        With a softmax over classes the maximum is taken here, before resizing: halfway between
        locations of two concepts of a class, the blended maximum stays high, while a maximum of
        blended concepts would dip. It also needs only one map per class. With a softmax over
        concepts there is one map per concept, (N, K, h, w).
        """
        features = self._features(windows)
        return self._scores((features.movedim(1, -1) @ self._queries.T).movedim(-1, 1), 1)

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


def _resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    from torch.nn import functional as F

    return F.interpolate(image[None], size, mode="bilinear", antialias=True)[0]
