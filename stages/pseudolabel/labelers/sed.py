"""SED: an open-vocabulary segmenter trained on COCO-Stuff, the labeler of SemiOVS."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from pipeline.config.config_section import Facts, Section
from pipeline.config.vocabulary_doubts import asked_for, doubts_of_texts
from pipeline.errors import WeightsError
from pipeline.files import locations
from pipeline.files.checksum import checksum
from pipeline.files.config_paths import MaybePath
from stages.models.clip.clip_weights import (
    FOLDER_CONFIG,
    FOLDER_PREFIX,
    ModelName,
    model_folder,
)
from stages.models.model_folder import tokenizer_facts
from stages.pseudolabel.labelers.base import Labeler

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import torch
    from torch import Tensor

    from stages.labels.pseudo_labels import PseudoLabels
    from stages.models.clip.clip import Clip
    from stages.pseudolabel.labelers.base import ImageBatch
    from stages.pseudolabel.sed.network import Sed as SedNetwork

_STRIDE_PX = 32
_DRIVE = "https://drive.google.com/file/d/"
_PUBLISHED = {
    "convnext_large_d_320": f"SED (L) from {_DRIVE}1zAXE0QXy47n0cVn7j_2cSR85eqxdDGg8/view",
    "convnext_base_w_320": f"SED (B) from {_DRIVE}1qx6zGZgSPkF6TObregRz4uzQqSRHrgUw/view",
}
_UNUSED_FACTS = frozenset(["vocabulary.templates", "vocabulary.prompts"])


class SedConfig(Section):
    """Keys of the labeler `sed`."""

    model: ModelName
    """The open_clip name of its CLIP: convnext_large_d_320 (SED-L), convnext_base_w_320 (SED-B), or
    local-dir:FOLDER with the open_clip_config.json of any ConvNeXt CLIP."""
    weights: Annotated[MaybePath, Field(min_length=1)]
    """The checkpoint file from https://github.com/xb534/SED, or its tensors as .safetensors."""
    mode: Literal["normal", "fast"] = "normal"
    """`fast` drops classes early that are not among the best of any pixel."""
    topk: Annotated[int, Field(ge=1)] = 8
    """For `fast`: how many classes count as the best of a pixel."""
    input_px: Annotated[int, Field(ge=_STRIDE_PX, le=4096, multiple_of=_STRIDE_PX)] = 768
    """Side of the square that images are stretched to; time and memory grow with its area."""
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Pixels whose best class has a lower score are ignored."""

    @model_validator(mode="after")
    def _check_model(self) -> Self:
        if self.folder is None and self.model not in _PUBLISHED:
            raise ValueError(
                f"no SED was published for {self.model!r}; use convnext_large_d_320 (SED-L), "
                f"convnext_base_w_320 (SED-B), or {FOLDER_PREFIX}FOLDER"
            )
        return self

    @property
    def folder(self) -> Path | None:
        """The model's folder, if it is not an open_clip name."""
        return model_folder(self.model)

    @property
    def weights_file(self) -> Path:
        """The checkpoint file; it may not exist."""
        return locations.local_path(self.weights)

    def weights_facts(self) -> Facts:
        """See `Labeler.weights_facts`; for a folder also its config and its tokenizer.

        Raises:
            WeightsError: A file is missing.
        """
        weights = self.weights_file
        if not weights.is_file():
            published = _PUBLISHED.get(self.model, "a SED checkpoint of that model")
            fix = f"download {published} and save it there"
            raise WeightsError("there is no such file", where=f"weights: {weights}", fix=fix)
        facts: Facts = {"weights": checksum(weights)}
        if self.folder is not None:
            config = self.folder / FOLDER_CONFIG
            if not config.is_file():
                what = f"the folder has no {FOLDER_CONFIG}"
                raise WeightsError(what, where=f"model: {self.model}", fix="save it there")
            facts["weights.config"] = checksum(config)
            facts |= tokenizer_facts(self.folder, config)
        return facts

    def text_facts(self) -> Facts:
        """The facts that embeddings of texts depend on."""
        facts = self.weights_facts()
        return facts if "weights.config" in facts else {**facts, "model": self.model}


class Sed(Labeler):
    """Scores every class at every pixel independently, and takes the best.

    It always uses CLIP's 80 templates, over which its first layer convolves.
    """

    Config = SedConfig
    version = 2
    config: SedConfig
    libraries = ("torch", "open_clip_torch", "timm")

    @property
    def resizes(self) -> bool:
        """See `Labeler.resizes`."""
        return True

    def weights_facts(self) -> Facts:
        """See `Labeler.weights_facts`."""
        return self.config.weights_facts()

    def vocabulary_facts(self) -> Facts:
        """See `Labeler.vocabulary_facts`; without templates and prompts, which SED does not use.

        Raises:
            ConfigError: No class has a concept.
        """
        facts = self.vocabulary.prompt_facts()
        return {key: value for key, value in facts.items() if key not in _UNUSED_FACTS}

    def shows(self) -> frozenset[int]:
        """See `Labeler.shows`."""
        return asked_for(self.vocabulary, has_rest=False)

    def warnings(self) -> list[str]:
        """See `Labeler.warnings`: classes that cannot be told by their concepts."""
        return doubts_of_texts(self.vocabulary, has_rest=False)

    def rehearse(self, *, downloads: bool) -> None:
        """See `Labeler.rehearse`: whether the checkpoint is one, and the length of prompts."""
        import torch

        from stages.models.clip import text

        _, clip = self._load(torch.device("cpu"))
        for prompts in text.prompts(text.channels(self.vocabulary), text.TEMPLATES["stack-80"]):
            clip.check_whole(prompts)

    def load(self, device: torch.device, cache: Path | None = None) -> None:
        """See `Labeler.load`; also embeds the vocabulary and caches the embeddings."""
        from functools import partial

        from stages.models.clip import text
        from stages.models.clip.text_cache import TextCache

        self.vocabulary_facts()  # both fail before the slow part
        self.weights_facts()
        self._channels = text.channels(self.vocabulary)
        self._network, self._clip = self._load(device)
        self._queries = text.embed(
            partial(self._clip.encode_text, normalize=False),
            self._channels,
            text.TEMPLATES["stack-80"],
            cache=None if cache is None else TextCache(cache / "texts", self.config.text_facts()),
        ).to(device)

    def _load(self, device: torch.device) -> tuple[SedNetwork, Clip]:
        from stages.pseudolabel.sed.checkpoint import load_sed

        folder = self.config.folder
        model = self.config.model if folder is None else f"{FOLDER_PREFIX}{folder}"
        needs_heads = self.config.mode == "fast"
        return load_sed(model, self.config.weights_file, device, needs_heads=needs_heads)

    def label(self, images: ImageBatch) -> PseudoLabels:
        """See `Labeler.label`; confidence is the score of the class."""
        import torch

        from stages.pseudolabel.pixels.classify_pixels import classify_pixels

        device = self._queries.device
        values = torch.tensor(self._channels.values, device=device)
        background, threshold = self.vocabulary.background_id, self.config.threshold
        labels = (
            classify_pixels(scores, values, background, threshold=threshold)
            for scores in self.class_scores(images)
        )
        return images.place(labels, device)

    def class_scores(self, images: ImageBatch) -> Iterator[Tensor]:
        """(C, H, W) float in [0, 1] for each image in order, one channel per class.

        H and W are those of the label: scores are resized to it before the best concept counts.
        Images are processed one by one: if two classes have almost the same score, the one that
        `fast` drops must not depend on the rest of the batch.
        """
        from torch.nn import functional as F

        from stages.pseudolabel.sed.network import fitted

        topk = self.config.topk if self.config.mode == "fast" else None
        for index, size in enumerate(images.sizes):
            image = fitted(images.original(index), self.config.input_px)
            shown = self._clip.normalize(image.to(self._queries.device))
            scores = self._network(shown, self._queries, topk)
            resized = F.interpolate(scores[None], size, mode="bilinear")[0]
            yield self._channels.class_scores(resized.movedim(0, -1)).movedim(-1, 0)
