"""Open-vocabulary labels straight from CLIP's own features, with no training (MaskCLIP)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from pipeline.checksum import checksum
from pipeline.errors import WeightsError
from pipeline.section import Facts, RunOnly, Section
from pipeline.vocabulary import IGNORE
from stages.pseudolabel.labelers.base import Labeler

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from stages.pseudolabel.pseudo_labels import ImageBatch, PseudoLabels

_SANDBOX = "sandbox"
_SANDBOX_FOLDER = Path(__file__).resolve().parents[2] / "sandbox" / "clip"
_FOLDER_PREFIX = "local-dir:"
_FOLDER_CONFIG = "open_clip_config.json"
_CHECKPOINT_ENDINGS = frozenset([".bin", ".pt", ".pth", ".safetensors"])

# In the order in which open_clip prefers them, so that the file we hash is the file it loads.
_CHECKPOINT_NAMES = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    "model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.pth",
    "model.pth",
)

# Repositories of OpenAI's weights; open_clip knows them too, but importing it takes torch.
_OPENAI_REPOSITORIES = {
    "RN50": "timm/resnet50_clip.openai",
    "RN101": "timm/resnet101_clip.openai",
    "ViT-B-32": "timm/vit_base_patch32_clip_224.openai",
    "ViT-B-16": "timm/vit_base_patch16_clip_224.openai",
    "ViT-L-14": "timm/vit_large_patch14_clip_224.openai",
    "ViT-L-14-336": "timm/vit_large_patch14_clip_336.openai",
}


class DenseClipConfig(Section):
    """Keys of the labeler `dense_clip`."""

    model: Annotated[str, Field(min_length=1)]
    """An open_clip architecture (ViT-B-16), local-dir:FOLDER in open_clip's layout, or sandbox."""
    weights: Annotated[str, Field(min_length=1)] | None = None
    """An architecture's weights: an open_clip tag (openai), downloaded on first use, or a file.
    OpenAI's weights in a file need the architecture that ends in -quickgelu; a tag sees to that."""
    stand_in: Literal["sandbox"] | None = None
    """What labels, with a warning, where `weights` is a file that is not there."""
    short_side_px: Annotated[int, Field(ge=1)] | None = None
    """Images are resized to this short side before they are cut. Default: as they are stored."""
    window_px: Annotated[int, Field(ge=1, le=8192)]
    """Side of the squares that the model sees; a multiple of its patch size."""
    stride_px: Annotated[int, Field(ge=1)]
    """Distance between windows; what several windows cover is averaged."""
    logit_scale: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Cosines are multiplied by this before the softmax. Default: what the model learned."""
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Pixels whose best class is less probable are ignored."""
    batch_size: Annotated[int, Field(ge=1), RunOnly] = 16
    """Windows a forward."""

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if self.folder is None and self.weights is None:
            raise ValueError(
                f"name the `weights` of {self.model}: an open_clip tag such as openai, or a file"
            )
        if self.folder is not None and self.weights is not None:
            raise ValueError(f"leave out `weights`: {self.model} brings its own")
        if self.stand_in is not None and self.weights_file is None:
            raise ValueError(
                "leave out `stand_in`, or name a file in `weights`, such as "
                f"weights/{_CHECKPOINT_NAMES[0]}: it stands in only for a file that is missing"
            )
        if self.stride_px > self.window_px:
            raise ValueError(
                f"stride_px {self.stride_px} leaves gaps between windows of {self.window_px}; "
                f"use at most {self.window_px}, or half of it for smooth seams"
            )
        return self

    @property
    def folder(self) -> Path | None:
        """The folder that the model is, if it is one."""
        if self.model == _SANDBOX:
            return _SANDBOX_FOLDER
        if self.model.startswith(_FOLDER_PREFIX):
            return Path(self.model.removeprefix(_FOLDER_PREFIX))
        return None

    @property
    def weights_file(self) -> Path | None:
        """The file that `weights` names, there or not; None for a tag."""
        if self.weights is None:
            return None
        path = Path(self.weights)
        is_path = os.sep in self.weights or "/" in self.weights or path.is_file()
        return path if is_path or path.suffix in _CHECKPOINT_ENDINGS else None


class DenseClip(Labeler):
    """Compares a CLIP feature of every location with the texts of all classes."""

    Config = DenseClipConfig
    version = 1
    config: DenseClipConfig

    def weights_facts(self) -> Facts:
        """See `Labeler.weights_facts`; of a folder also its config, which is half the model."""
        model, weights = self._chosen()
        if isinstance(weights, str):
            return {"weights": weights}
        stands_in = "stand-in sandbox: " if self._stands_in else ""
        facts: Facts = {"weights": f"{stands_in}{checksum(weights)}"}
        if isinstance(model, Path):
            facts["weights.config"] = checksum(model / _FOLDER_CONFIG)
        return facts

    def warnings(self) -> list[str]:
        """See `Labeler.warnings`: where the sandbox's CLIP is asked about other things."""
        ignorance = (
            "the sandbox's CLIP, which was trained on drawn scenes and knows nothing of real "
            "photos, so that its labels of photos are near chance"
        )
        if self._stands_in:
            fetch = _how_to_fetch(self.config)
            return [f"{self.config.weights} is missing, its stand-in is {ignorance}; {fetch}"]
        if self.config.model == _SANDBOX and self.vocabulary.name != _SANDBOX:
            return [f"vocabulary {self.vocabulary.name} is asked of {ignorance}; use another model"]
        return []

    def load(self, device: torch.device) -> None:
        """See `Labeler.load`; it also embeds the vocabulary."""
        from stages.pseudolabel.clip import load_clip
        from stages.pseudolabel.text import channels, embed

        self._channels = channels(self.vocabulary)
        model, weights = self._chosen()
        self._clip = load_clip(model, weights, window_px=self.config.window_px, device=device)
        self._concepts = embed(self._clip, self._channels.concepts, self.vocabulary.templates)

    def label(self, images: ImageBatch) -> PseudoLabels:
        """See `Labeler.label`."""
        import torch

        from stages.pseudolabel.pseudo_labels import PseudoLabels
        from stages.pseudolabel.windows import sliding_scores

        device = self._concepts.device
        count, _, *canvas = images.pixels.shape
        mask = torch.full((count, *canvas), IGNORE, device=device)
        confidence = torch.zeros(count, *canvas, device=device)
        values = torch.tensor(self._channels.values, device=device)
        scale = self.config.logit_scale or self._clip.logit_scale
        canvases = zip(images.pixels.to(device), images.sizes, strict=True)
        scores = sliding_scores(
            [self._scaled(pixels[:, :height, :width]) for pixels, (height, width) in canvases],
            self._window_scores,
            window_px=self.config.window_px,
            stride_px=self.config.stride_px,
            batch_size=self.config.batch_size,
        )
        for index, (size, cosines) in enumerate(zip(images.sizes, scores, strict=True)):
            probabilities = (scale * cosines).softmax(0)
            if probabilities.shape[1:] != size:
                probabilities = _resized(probabilities, size)
            best, channel = probabilities.max(0)
            label = values[channel]
            kept = (label != IGNORE) & (best >= self.config.threshold)
            image = (index, slice(size[0]), slice(size[1]))
            mask[image] = label.where(kept, IGNORE)
            confidence[image] = best.clamp(max=1).where(kept, 0)
        return PseudoLabels(mask, confidence)

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

    @property
    def _stands_in(self) -> bool:
        """Whether the stand-in labels, since the file that was asked for is missing."""
        file = self.config.weights_file
        return self.config.stand_in is not None and file is not None and not file.is_file()

    def _chosen(self) -> tuple[str | Path, str | Path]:
        """The architecture or folder to load, and its tag or checkpoint file."""
        folder = _SANDBOX_FOLDER if self._stands_in else self.config.folder
        if folder is not None:
            return folder, _checkpoint_in(folder)
        assert self.config.weights is not None
        file = self.config.weights_file
        if file is not None and not file.is_file():
            fix = f"{_how_to_fetch(self.config)}; or set `stand_in: sandbox` to try without it"
            raise WeightsError("there is no such file", where=f"weights: {file}", fix=fix)
        return self.config.model, file or self.config.weights


def _resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    from torch.nn import functional as F

    return F.interpolate(image[None], size, mode="bilinear", antialias=True)[0]


def _checkpoint_in(folder: Path) -> Path:
    found = [folder / name for name in _CHECKPOINT_NAMES if (folder / name).is_file()]
    if not (found and (folder / _FOLDER_CONFIG).is_file()):
        what = f"no folder with {_FOLDER_CONFIG} and weights in open_clip's layout"
        fix = f"put {_FOLDER_CONFIG} and {_CHECKPOINT_NAMES[0]} there"
        raise WeightsError(what, where=f"model: {_FOLDER_PREFIX}{folder}", fix=fix)
    return found[0]


def _how_to_fetch(config: DenseClipConfig) -> str:
    """The command that fetches weights for the config's architecture, and what to set then."""
    repository = _OPENAI_REPOSITORIES.get(config.model.removesuffix("-quickgelu"))
    if repository is None or config.weights_file is None:
        return f"save a checkpoint of {config.model} there"
    fetched = config.weights_file.parent / _CHECKPOINT_NAMES[0]
    settings = []
    if not config.model.endswith("-quickgelu"):
        settings.append(f"`model: {config.model}-quickgelu`")
    if fetched != config.weights_file:
        settings.append(f"`weights: {fetched}`")
    command = f"hf download {repository} {fetched.name} --local-dir {fetched.parent}"
    return f"run `{command}`" + (f" and set {' and '.join(settings)}" if settings else "")
