"""The section `propose`: the SAM, the images it sees and the settings of its mask generator."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipeline.config.config_section import Facts, RunOnly, Section
from pipeline.config.plain_words import Unit
from pipeline.console import Console
from pipeline.errors import WeightsError
from pipeline.files.checksum import checksum, named
from pipeline.files.config_paths import LocalPath
from pipeline.files.download import fetch
from stages.ingest.config import Role
from stages.models.embedded.models import SAM, SANDBOX, SandboxName
from stages.propose.published import CHECKPOINTS

Share = Annotated[float, Field(ge=0, le=1)]


class GeneratorConfig(Section):
    """The options of `SamAutomaticMaskGenerator`, by its names, and a mode."""

    mode: Literal["exact", "fast"] = "exact"
    """exact: its masks; fast: nearly the same masks from fewer points, where masks cover many."""
    points_per_side: Annotated[int, Field(ge=1, le=256), Unit("points")] = 32
    """Points along each side of an image; the cost grows with the square of this number."""
    points_per_batch: Annotated[int, Field(ge=1), RunOnly, Unit("points")] = 64
    """Points per forward pass of the decoder; a CPU processes as many as fit its caches."""
    images_per_batch: Annotated[int, Field(ge=1), RunOnly, Unit("images")] = 1
    """Images, or crops of them, per forward pass of the encoder; vit_h needs 4 GB for each."""
    pred_iou_thresh: Share = 0.88
    """Masks whose IoU, as predicted by SAM, is lower are dropped."""
    stability_score_thresh: Share = 0.95
    """Masks that change more when the threshold of their logits moves are dropped."""
    stability_score_offset: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    """Distance by which that threshold is moved up and down."""
    box_nms_thresh: Share = 0.7
    """If boxes of masks overlap more, only the mask with the highest predicted IoU is kept."""
    crop_n_layers: Annotated[int, Field(ge=0, le=4)] = 0
    """Layers of crops that SAM sees in addition to the whole image; layer i has 4^i crops."""
    crop_nms_thresh: Share = 0.7
    """Like `box_nms_thresh`, between crops."""
    crop_overlap_ratio: Share = 512 / 1500
    """Overlap of crops in the first layer, as a share of the image's short side."""
    crop_n_points_downscale_factor: Annotated[int, Field(ge=1)] = 1
    """In layer i, points per side are divided by this number to the power of i."""
    min_mask_region_area: Annotated[int, Field(ge=0), Unit("pixels")] = 0
    """Holes of fewer pixels are filled, islands of fewer pixels are removed."""

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

    model: Literal[SandboxName, "vit_b", "vit_l", "vit_h"]
    """A SAM by segment_anything's name, or sandbox: the tiny SAM that comes with Maskmill."""
    weights: Annotated[LocalPath | None, RunOnly] = None  # facts hold its checksum, not its path
    """The model's checkpoint file. Default: the published file, downloaded on first use. Leave it
    out for sandbox, which has its own weights."""
    roles: Annotated[tuple[Role, ...], RunOnly] = ("ood",)  # a shard's facts list its images
    """Roles to find masks for, in addition to the labeled images, on which labels are measured."""
    size_px: Annotated[int, Field(ge=32, le=4096)] = 512
    """Long side that images are scaled to; labelers need the same value in `pseudolabel`."""
    device: Annotated[str, RunOnly] = "auto"
    """cpu, cuda, mps, or auto: a GPU if there is one."""

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if self.model == SANDBOX and self.weights is not None:
            raise ValueError("leave out `weights`: the sandbox's SAM has its own")
        return self

    def weights_facts(self) -> Facts:
        """Checksums of the model's files, without torch.

        The checksum of a published checkpoint is known before it is downloaded.

        Raises:
            WeightsError: A local file is missing.
        """
        if self.model == SANDBOX:
            return {f"propose.{key}": value for key, value in SAM.facts().items()}
        published = CHECKPOINTS[self.model]
        if self.weights is None:
            return {"propose.weights": named(published.name, published.sha256)}
        if not self.weights.is_file():
            where = f"propose.weights: {self.weights}"
            fix = f"download {published.url} and put it there, or leave out the key and run again"
            raise WeightsError("there is no such file", where=where, fix=fix)
        return {"propose.weights": checksum(self.weights)}

    def checkpoint(self, console: Console) -> Path | None:
        """The model's checkpoint, downloaded if needed; None for the sandbox's SAM.

        Raises:
            WeightsError: The download fails, or its checksum is not the published one.
        """
        if self.model == SANDBOX or self.weights is not None:
            return self.weights
        return fetch(CHECKPOINTS[self.model], console, f"propose.model: {self.model}")
