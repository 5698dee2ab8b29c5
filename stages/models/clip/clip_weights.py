"""Which CLIP is asked: the keys for it, and the files behind them. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from pipeline.config.config_section import Facts, RunOnly, Section
from pipeline.errors import WeightsError
from pipeline.files import locations
from pipeline.files.checksum import checksum
from pipeline.files.locations import MaybePath

SANDBOX = "sandbox"
_SANDBOX_FOLDER = Path(__file__).resolve().parents[2] / "sandbox" / "clip"
FOLDER_PREFIX = "local-dir:"
FOLDER_CONFIG = "open_clip_config.json"
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


Variant = Literal["vanilla", "maskclip", "sclip", "gem"]
"""What takes the place of CLIP's attention where features of locations are read."""


@dataclass(frozen=True)
class Dense:
    """How a feature for each location is had; see the keys of `ClipConfig`."""

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


def _with_a_good_folder(model: str) -> str:
    model_folder(model)
    return model


ModelName = Annotated[str, Field(min_length=1), AfterValidator(_with_a_good_folder)]
"""Name of a model, or local-dir:FOLDER."""


class ClipChoice(Section):
    """Keys of whatever asks a CLIP: which one."""

    model: ModelName
    """An open_clip architecture (ViT-B-16), local-dir:FOLDER in open_clip's layout, or sandbox."""
    weights: Annotated[MaybePath, Field(min_length=1)] | None = None
    """An architecture's weights: an open_clip tag (openai), downloaded on first use, or a file.
    OpenAI's weights in a file need the architecture that ends in -quickgelu; a tag sees to that."""

    @model_validator(mode="after")
    def _names_weights_once(self) -> Self:
        if self.folder is None and self.weights is None:
            raise ValueError(
                f"name the `weights` of {self.model}: an open_clip tag such as openai, or a file"
            )
        if self.folder is not None and self.weights is not None:
            raise ValueError(f"leave out `weights`: {self.model} brings its own")
        return self

    @property
    def folder(self) -> Path | None:
        """The folder that the model is, if it is one."""
        if self.model == SANDBOX:
            return _SANDBOX_FOLDER
        return model_folder(self.model)

    @property
    def weights_file(self) -> Path | None:
        """The file that `weights` names, there or not; None for a tag."""
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
        if self.folder is not None:
            return self.folder, _checkpoint_in(self.folder)
        assert self.weights is not None
        file = self.weights_file
        if file is not None and not file.is_file():
            fix = self.how_to_go_on()
            raise WeightsError("there is no such file", where=f"weights: {file}", fix=fix)
        return self.model, file or self.weights

    def weights_facts(self) -> Facts:
        """Tag, or checksum of the file; of a folder also that of its config, half the model.

        Raises:
            WeightsError: A local file is missing.
        """
        model, weights = self.chosen()
        if isinstance(weights, str):
            return {"weights": weights}
        facts: Facts = {"weights": checksum(weights)}
        if isinstance(model, Path):
            facts["weights.config"] = checksum(model / FOLDER_CONFIG)
        return facts

    def text_facts(self) -> Facts:
        """What embeddings of texts depend on: weights, and the architecture that reads them."""
        facts = self.weights_facts()
        return facts if "weights.config" in facts else {**facts, "model": self.model}

    def how_to_go_on(self) -> str:
        """What to do where the file that `weights` names is missing."""
        return self.how_to_fetch()

    def how_to_fetch(self) -> str:
        """The command that fetches weights for the architecture, and what to set then."""
        repository = _OPENAI_REPOSITORIES.get(self.model.removesuffix("-quickgelu"))
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
    """Keys of every labeler that asks a CLIP."""

    stand_in: Literal["sandbox"] | None = None
    """What labels, with a warning, where `weights` is a file that is not there."""
    variant: Variant = "maskclip"
    """Of a ViT: vanilla, its own attention; maskclip, each place sees itself alone in the last
    block; sclip, places see what is like them; gem, so in the last six. Of a ConvNeXt vanilla and
    maskclip are one, its dense projection; a ResNet of CLIP has maskclip alone."""
    residual: bool = True
    """Whether the last block adds its attention to what came in; not of gem."""
    ffn: bool = True
    """Whether the last block ends with its feed-forward network; not of gem."""
    short_side_px: Annotated[int, Field(ge=1)] | None = None
    """Images are resized to this short side before they are cut. Default: as they are stored."""
    window_px: Annotated[int, Field(ge=1, le=8192)]
    """Side of the squares that the model sees; a multiple of its patch size."""
    stride_px: Annotated[int, Field(ge=1)]
    """Distance between windows; what several windows cover is averaged."""
    logit_scale: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Cosines are multiplied by this before the softmax. Default: what the model learned."""
    softmax_over: Literal["classes", "concepts"] = "classes"
    """What probabilities are shared among: classes, each as its best concept (SemiVL), or all
    concepts, after which the best concept's probability is the class's (SCLIP)."""
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Pixels whose best class is less probable are ignored."""
    prob_threshold: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Pixels whose best class is less probable are background, and ignored where the vocabulary has
    none (SCLIP)."""
    area_threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    """Classes that win at most this share of what is not background are out in an image (SCLIP)."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """What the image side computes in; the halves are meant for GPUs."""
    compile: Annotated[bool, RunOnly] = False
    """Whether torch compiles the image side first; equal labels up to rounding, as of a device."""
    batch_size: Annotated[int, Field(ge=1), RunOnly] = 16
    """Windows a forward."""

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if self.stand_in is not None and self.weights_file is None:
            raise ValueError(
                "leave out `stand_in`, or name a file in `weights`, such as "
                f"weights/{_CHECKPOINT_NAMES[0]}: it stands in only for a file that is missing"
            )
        if self.variant == "gem" and not (self.residual and self.ffn):
            raise ValueError(
                "leave out `residual` and `ffn`: gem adds up blocks, and has no feed-forward anyway"
            )
        if self.stride_px > self.window_px:
            raise ValueError(
                f"stride_px {self.stride_px} leaves gaps between windows of {self.window_px}; "
                f"use at most {self.window_px}, or half of it for smooth seams"
            )
        return self

    @property
    def dense(self) -> Dense:
        """How features of locations are had."""
        return Dense(self.variant, self.residual, self.ffn)

    @property
    def stands_in(self) -> bool:
        """Whether the stand-in labels, since the file that was asked for is missing."""
        file = self.weights_file
        return self.stand_in is not None and file is not None and not file.is_file()

    def chosen(self) -> tuple[str | Path, str | Path]:
        """See `ClipChoice.chosen`; maybe the stand-in."""
        if self.stands_in:
            return _SANDBOX_FOLDER, _checkpoint_in(_SANDBOX_FOLDER)
        return super().chosen()

    def weights_facts(self) -> Facts:
        """See `Labeler.weights_facts` and `ClipChoice.weights_facts`."""
        facts = super().weights_facts()
        if self.stands_in:
            facts["weights"] = f"stand-in {SANDBOX}: {facts['weights']}"
        return facts

    def how_to_go_on(self) -> str:
        """See `ClipChoice.how_to_go_on`."""
        return f"{super().how_to_go_on()}; or set `stand_in: {SANDBOX}` to try without it"


def _checkpoint_in(folder: Path) -> Path:
    found = [folder / name for name in _CHECKPOINT_NAMES if (folder / name).is_file()]
    if not (found and (folder / FOLDER_CONFIG).is_file()):
        what = f"no folder with {FOLDER_CONFIG} and weights in open_clip's layout"
        fix = f"put {FOLDER_CONFIG} and {_CHECKPOINT_NAMES[0]} there"
        raise WeightsError(what, where=f"model: {FOLDER_PREFIX}{folder}", fix=fix)
    return found[0]
