"""The section `propose`: which SAM, over which images, with which settings of its generator."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipeline.config.config_section import Facts, RunOnly, Section
from pipeline.console import Console
from pipeline.errors import WeightsError
from pipeline.files.checksum import checksum, named
from pipeline.files.download import fetch
from pipeline.files.locations import LocalPath
from stages.ingest.config import Role
from stages.propose.published import CHECKPOINTS

SANDBOX = "sandbox"
SANDBOX_FOLDER = Path(__file__).resolve().parents[1] / "sandbox" / "sam"

_SANDBOX_FILES = {"weights": "sam_model.safetensors", "weights.config": "sam_config.json"}
Share = Annotated[float, Field(ge=0, le=1)]


class GeneratorConfig(Section):
    """How to propose: the options of `SamAutomaticMaskGenerator`, by its names, and a mode."""

    mode: Literal["exact", "fast"] = "exact"
    """exact: its masks; fast: nearly the same ones, of fewer points where masks cover many."""
    points_per_side: Annotated[int, Field(ge=1, le=256)] = 32
    """Points asked about along each side of an image; their square is what it costs."""
    points_per_batch: Annotated[int, Field(ge=1), RunOnly] = 64
    """Points a forward of the decoder, of any images; a CPU takes as many as its caches hold."""
    images_per_batch: Annotated[int, Field(ge=1), RunOnly] = 1
    """Images, or crops of them, a forward of the encoder; vit_h takes some 4 GB for each."""
    pred_iou_thresh: Share = 0.88
    """Masks that SAM itself thinks less of are dropped."""
    stability_score_thresh: Share = 0.95
    """Masks that change more with the cut of their logits are dropped."""
    stability_score_offset: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    """How far that cut is moved up and down."""
    box_nms_thresh: Share = 0.7
    """Of masks whose boxes overlap more, the surest one stays."""
    crop_n_layers: Annotated[int, Field(ge=0, le=4)] = 0
    """Layers of crops that are looked at beside the whole image; layer i has 4^i."""
    crop_nms_thresh: Share = 0.7
    """As `box_nms_thresh`, between crops."""
    crop_overlap_ratio: Share = 512 / 1500
    """How much crops of the first layer overlap, in short sides."""
    crop_n_points_downscale_factor: Annotated[int, Field(ge=1)] = 1
    """Layer i has this to the power of i times fewer points a side."""
    min_mask_region_area: Annotated[int, Field(ge=0)] = 0
    """Holes and islands of fewer pixels are mended."""

    @model_validator(mode="after")
    def _has_points(self) -> Self:
        layers, factor = self.crop_n_layers, self.crop_n_points_downscale_factor
        if self.points_per_side < factor**layers:
            raise ValueError(
                f"layer {layers} of crops has no points: give `points_per_side` {factor**layers} "
                "or more, or lower `crop_n_points_downscale_factor` or `crop_n_layers`"
            )
        return self


class ProposeConfig(GeneratorConfig):
    """The section `propose`."""

    model: Literal["sandbox", "vit_b", "vit_l", "vit_h"]
    """A SAM by segment_anything's name, or the sandbox's own."""
    weights: Annotated[LocalPath | None, RunOnly] = None  # what is in it counts, not where it lies
    """The model's checkpoint file. Default: the published one, downloaded on first use; the
    sandbox's SAM brings its own."""
    roles: Annotated[tuple[Role, ...], RunOnly] = ("ood",)  # each shard says which images it has
    """Images to find masks in, beside the labeled ones, on which labels are measured."""
    size_px: Annotated[int, Field(ge=32, le=4096)] = 512
    """Long side that images are scaled to; labelers need it equal to that of `pseudolabel`."""
    device: Annotated[str, RunOnly] = "auto"
    """cpu, cuda, or auto: a GPU where there is one."""

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if self.model == SANDBOX and self.weights is not None:
            raise ValueError("leave out `weights`: the sandbox's SAM brings its own")
        return self

    def weights_facts(self) -> Facts:
        """Checksums of the files that the model is read from. No torch needed.

        Those of a published checkpoint are known before it is downloaded.

        Raises:
            WeightsError: A local one is missing.
        """
        if self.model == SANDBOX:
            files = {key: SANDBOX_FOLDER / name for key, name in _SANDBOX_FILES.items()}
            where = f"propose.model: {SANDBOX}"
            fix = "restore stages/sandbox/sam, or run `python -m stages.sandbox.train_sam`"
        elif self.weights is None:
            published = CHECKPOINTS[self.model]
            return {"propose.weights": named(published.name, published.sha256)}
        else:
            files, where = {"weights": self.weights}, "propose.weights"
            address = CHECKPOINTS[self.model].url
            fix = f"download {address} and put it there, or leave out the key to have that done"
        for file in files.values():
            if not file.is_file():
                raise WeightsError("there is no such file", where=f"{where}: {file}", fix=fix)
        return {f"propose.{key}": checksum(file) for key, file in files.items()}

    def checkpoint(self, console: Console) -> Path | None:
        """The model's file, downloaded if need be; None for the sandbox's, which is several.

        Raises:
            WeightsError: It cannot be downloaded, or is not what was published.
        """
        if self.model == SANDBOX or self.weights is not None:
            return self.weights
        return fetch(CHECKPOINTS[self.model], console, f"propose.model: {self.model}")
