"""Config keys that choose a CLIP, and the files they stand for. Needs no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from pipeline.config.config_section import Facts, RunOnly, Section, UnlessDefault
from pipeline.errors import WeightsError
from pipeline.files import config_paths, locations
from pipeline.files.checksum import checksum
from pipeline.files.config_paths import MaybePath
from stages.models.embedded.models import CLIP, SANDBOX, SandboxName
from stages.models.model_folder import tokenizer_facts
from stages.models.segmenters.normalization import Normalization

FOLDER_PREFIX = "local-dir:"
FOLDER_CONFIG = "open_clip_config.json"
_CHECKPOINT_ENDINGS = frozenset([".bin", ".pt", ".pth", ".safetensors"])

# In open_clip's order of preference, so that the file we hash is the file that it loads.
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

# Repositories of OpenAI's weights. open_clip lists them too, but importing it imports torch.
_OPENAI_REPOSITORIES = {
    "RN50": "timm/resnet50_clip.openai",
    "RN101": "timm/resnet101_clip.openai",
    "ViT-B-32": "timm/vit_base_patch32_clip_224.openai",
    "ViT-B-16": "timm/vit_base_patch16_clip_224.openai",
    "ViT-L-14": "timm/vit_large_patch14_clip_224.openai",
    "ViT-L-14-336": "timm/vit_large_patch14_clip_336.openai",
}

_OF_OTHER_STATISTICS = re.compile("SigLIP|siglip|CLIPA|^PE-|MobileCLIP|^ViT-L-14$")
"""Architectures whose images are not normalized by OpenAI's statistics, or not always. Labels by
files of these were made with the wrong ones once, so they are stale."""
_ALWAYS_QUICK = re.compile(
    "^(RN(50|101)(x[0-9]+)?|ViT-L-14-336|ViT-H-14-378|ViT-[HL]-14-worldwide)$"
)
"""Architectures all of whose weights have QuickGELU, though their name does not say it. Labels by
files of these were made with exact GELU once, so they are stale."""


def openai_repository(model: str) -> str | None:
    """The repository of OpenAI's weights of an architecture, if there are any."""
    return _OPENAI_REPOSITORIES.get(model.removesuffix("-quickgelu"))


Variant = Literal["vanilla", "maskclip", "sclip", "gem"]
"""Attention of the last blocks when features of each location are computed."""


@dataclass(frozen=True)
class Dense:
    """Settings for a feature at each location; see the keys of `ClipConfig`."""

    variant: Variant = "maskclip"
    residual: bool = True
    ffn: bool = True


MASKCLIP = Dense()
"""MaskCLIP as published."""


def model_folder(model: str) -> Path | None:
    """The folder of a model `local-dir:FOLDER`; None for any other model.

    Raises:
        ValueError: See `locations.local_path`.
    """
    if not model.startswith(FOLDER_PREFIX):
        return None
    return locations.local_path(model.removeprefix(FOLDER_PREFIX))


def _with_folder(model: object) -> object:
    return config_paths.with_path(model, FOLDER_PREFIX)


ModelName = Annotated[str, Field(min_length=1), BeforeValidator(_with_folder)]
"""Name of a model, or local-dir:FOLDER; a relative path starts at the config file."""


class ClipChoice(Section):
    """Keys that choose a CLIP."""

    model: ModelName
    """An open_clip architecture (ViT-B-16), local-dir:FOLDER in open_clip's layout, or sandbox."""
    weights: Annotated[MaybePath, Field(min_length=1)] | None = None
    """An architecture's weights: an open_clip tag (openai), downloaded on first use, or a file.
    For a file of OpenAI's weights choose the architecture that ends in -quickgelu; with a tag this
    is automatic."""

    normalization: Annotated[Normalization | None, UnlessDefault] = None
    """Mean and standard deviation (each three numbers, of images in 0 to 1) that the images of the
    model's training were normalized by, where `weights` is a file. Default: those in the file
    open_clip_config.json next to it, else those of all of open_clip's weights of the model."""

    @model_validator(mode="after")
    def _names_weights_once(self) -> Self:
        if self.folder is None and self.weights is None:
            raise ValueError(
                f"name the `weights` of {self.model}: an open_clip tag such as openai, or a file"
            )
        if self.folder is not None and self.weights is not None:
            raise ValueError(f"leave out `weights`: {self.model} has its own")
        return self

    @property
    def folder(self) -> Path | None:
        """The model's folder; None if it is an architecture of open_clip."""
        if self.model == SANDBOX:
            return CLIP.folder
        return model_folder(self.model)

    @property
    def weights_file(self) -> Path | None:
        """The file that `weights` names, which may be missing; None for a tag."""
        if self.weights is None:
            return None
        path = locations.local_path(self.weights)
        is_path = "/" in self.weights or path.is_file()
        return path if is_path or path.suffix in _CHECKPOINT_ENDINGS else None

    def chosen(self) -> tuple[str | Path, str | Path]:
        """The architecture or folder to load, and its tag or checkpoint file.

        Raises:
            WeightsError: A local file is missing.
        """
        if self.model == SANDBOX:
            return _sandbox()
        if self.folder is not None:
            return self.folder, _checkpoint_in(self.folder)
        assert self.weights is not None
        file = self.weights_file
        if file is not None and not file.is_file():
            fix = self.how_to_go_on()
            raise WeightsError("there is no such file", where=f"weights: {file}", fix=fix)
        return self.model, file or self.weights

    def weights_facts(self) -> Facts:
        """The tag, or the file's checksum; for a folder also those of its config and tokenizer.

        Raises:
            WeightsError: A local file is missing.
        """
        model, weights = self.chosen()
        if isinstance(weights, str):
            return {"weights": weights}
        facts: Facts = {"weights": checksum(weights)}
        if isinstance(model, str):
            if _OF_OTHER_STATISTICS.search(model):
                facts["weights.normalization"] = "of the model"
            if _ALWAYS_QUICK.match(model):
                facts["weights.activation"] = "of the model"
            if (beside := weights.with_name(FOLDER_CONFIG)).is_file():
                facts["weights.config"] = checksum(beside)
        if isinstance(model, Path):
            facts["weights.config"] = checksum(model / FOLDER_CONFIG)
            if model != CLIP.folder:  # whose files come with Maskmill and change only together
                facts |= tokenizer_facts(model, model / FOLDER_CONFIG)
        return facts

    def text_facts(self) -> Facts:
        """Facts that text embeddings depend on: the weights and the architecture."""
        facts = self.weights_facts()
        return facts if "weights.config" in facts else {**facts, "model": self.model}

    def how_to_go_on(self) -> str:
        """The advice of the error if the file that `weights` names is missing."""
        return self.how_to_fetch()

    def how_to_fetch(self) -> str:
        """The command that downloads weights for the architecture, and the keys to set then."""
        repository = openai_repository(self.model)
        if repository is None or self.weights_file is None:
            return f"save a checkpoint of {self.model} there"
        fetched = self.weights_file.parent / _CHECKPOINT_NAMES[0]
        settings = []
        if not self.model.endswith("-quickgelu"):
            settings.append(f"`model: {self.model}-quickgelu`")
        if fetched != self.weights_file:
            settings.append(f"`weights: {fetched}`")
        command = f"hf download {repository} {fetched.name} --local-dir {fetched.parent}"
        return f"run `{command}`" + (f" and set {' and '.join(settings)}" if settings else "")


class ClipConfig(ClipChoice):
    """Keys of every labeler that uses a CLIP."""

    stand_in: SandboxName | None = None
    """The model that labels, with a warning, if `weights` is a file that is missing."""
    variant: Variant = "maskclip"
    """Attention of a ViT: vanilla, its own; maskclip, in the last block each location attends only
    to itself; sclip, to locations that resemble it; gem, likewise in the last six blocks. Vanilla
    and maskclip are the same for a ConvNeXt; a ResNet of CLIP has only maskclip."""
    residual: bool = True
    """Whether the last block adds its input to its attention; not for gem."""
    ffn: bool = True
    """Whether the last block ends with its feed-forward network; not for gem."""
    short_side_px: Annotated[int, Field(ge=1)] | None = None
    """Short side that images are resized to before they are cut. Default: their stored size."""
    long_side_px: Annotated[Annotated[int, Field(ge=1)] | None, UnlessDefault] = None
    """Longest long side then; the short side gives way (2048 in mmsegmentation). Default: six times
    `short_side_px`."""
    fit: Annotated[Literal["shape", "square"], UnlessDefault] = "shape"
    """shape: resized images keep their shape; square: they are squeezed to a square of
    `short_side_px` (GEM)."""
    resize: Annotated[Literal["bilinear", "opencv", "bicubic"], UnlessDefault] = "bilinear"
    """How images are resized. bilinear: antialiased, without rounding; opencv: bilinear between two
    pixels and rounded, as OpenCV does (SCLIP); bicubic: antialiased and rounded, as Pillow does
    (GEM). The last two bring scores to the label's size without antialiasing, as published."""
    maps: Annotated[Literal["cosine", "min-max"], UnlessDefault] = "cosine"
    """Scores of a concept. cosine: with the feature of each location; min-max: the same, stretched
    to 0 to 1 over each image (GEM), before the best concept of a class counts."""
    window_px: Annotated[int, Field(ge=1, le=8192)]
    """Side of the squares that the model sees; a multiple of its patch size."""
    stride_px: Annotated[int, Field(ge=1)]
    """Distance between windows; where windows overlap, scores are averaged."""
    logit_scale: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Factor on cosines before the softmax. Default: the factor that the model learned."""
    softmax_over: Literal["classes", "concepts"] = "classes"
    """classes: the score of a class is that of its best concept, before the softmax (SemiVL);
    concepts: its probability is that of its best concept, after the softmax (SCLIP)."""
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Pixels whose best class has a lower probability are ignored."""
    prob_threshold: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Pixels whose best class has a lower probability become background, or are ignored if the
    vocabulary has no background (SCLIP)."""
    area_threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    """Classes with at most this share of an image's foreground are removed from it (SCLIP)."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Number format of the image encoder; the two half-precision formats are meant for GPUs."""
    compile: Annotated[bool, RunOnly] = False
    """Whether torch compiles the image encoder; labels change only by rounding."""
    batch_size: Annotated[int, Field(ge=1), RunOnly] = 16
    """Windows per forward pass."""

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if self.stand_in is not None and self.weights_file is None:
            raise ValueError(
                "leave out `stand_in`, or name a file in `weights`, such as "
                f"weights/{_CHECKPOINT_NAMES[0]}: it stands in only for a file that is missing"
            )
        if self.variant == "gem" and not (self.residual and self.ffn):
            raise ValueError(
                "leave out `residual` and `ffn`: gem adds up blocks without feed-forward networks"
            )
        if self.short_side_px is None and (resizing := self._resizing):
            raise ValueError(
                f"set `short_side_px` too: without it images are not resized, and "
                f"{', '.join(resizing)} would have no effect"
            )
        if self.fit == "square" and self.long_side_px is not None:
            raise ValueError("leave out `long_side_px`: the sides of a square are `short_side_px`")
        if self.stride_px > self.window_px:
            raise ValueError(
                f"stride_px {self.stride_px} leaves gaps between windows of {self.window_px}; "
                f"use at most {self.window_px}, or half of it for smooth seams"
            )
        return self

    @property
    def _resizing(self) -> list[str]:
        """The keys about resizing that differ from their defaults."""
        keys = ("long_side_px", "fit", "resize")
        return [key for key in keys if getattr(self, key) != type(self).model_fields[key].default]

    @property
    def dense(self) -> Dense:
        """Settings for a feature at each location."""
        return Dense(self.variant, self.residual, self.ffn)

    @property
    def stands_in(self) -> bool:
        """Whether the stand-in is used, because the file that `weights` names is missing."""
        file = self.weights_file
        return self.stand_in is not None and file is not None and not file.is_file()

    def chosen(self) -> tuple[str | Path, str | Path]:
        """See `ClipChoice.chosen`; the stand-in's files if it is used."""
        if self.stands_in:
            return _sandbox()
        return super().chosen()

    def weights_facts(self) -> Facts:
        """See `Labeler.weights_facts` and `ClipChoice.weights_facts`."""
        facts = super().weights_facts()
        if self.stands_in:
            facts["weights"] = f"stand-in {self.stand_in}: {facts['weights']}"
        return facts

    def how_to_go_on(self) -> str:
        """See `ClipChoice.how_to_go_on`."""
        return f"{super().how_to_go_on()}; or set `stand_in: {SANDBOX}` to try without it"


def _sandbox() -> tuple[Path, Path]:
    CLIP.check()
    return CLIP.folder, CLIP.weights


def _checkpoint_in(folder: Path) -> Path:
    found = [folder / name for name in _CHECKPOINT_NAMES if (folder / name).is_file()]
    if not (found and (folder / FOLDER_CONFIG).is_file()):
        what = f"the folder does not contain both {FOLDER_CONFIG} and weights"
        fix = f"put {FOLDER_CONFIG} and {_CHECKPOINT_NAMES[0]} there"
        raise WeightsError(what, where=f"model: {FOLDER_PREFIX}{folder}", fix=fix)
    return found[0]
