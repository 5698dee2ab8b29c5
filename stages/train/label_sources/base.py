"""What every label source is: it names the pixels of crops and says how much each counts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from pipeline.components import Component
from pipeline.section import Facts, Section

if TYPE_CHECKING:
    from pipeline.config import Config as RunConfig
    from stages.pseudolabel.pseudo_labels import PseudoLabels
    from stages.segmenters.networks.base import SegmentationNetwork
    from stages.train.batch import CropBatch, TrainBatch


class LabelSourceConfig(Section):
    """Keys that every label source has."""

    on: Literal["unlabeled", "ood"] = "unlabeled"
    """Role of the images it labels."""
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    """Weight of its loss; the supervised loss has 1, and the sum is divided by all weights."""


Asked = Literal["student", "teacher"]
"""The network in training, or the moving average of its weights."""

Threshold = Annotated[float, Field(ge=0, le=1)]
"""A confidence from which on a pixel counts."""


class OnlineConfig(LabelSourceConfig):
    """Keys of a source whose labels a network makes while it trains."""

    threshold: Threshold = 0.95
    """Confidence that a pixel needs to count."""


class LabelSource(Component, ABC):
    """Provides the labels of one role's images.

    Args:
        config: Its keys, an instance of its `Config`.
    """

    def __init__(self, config: LabelSourceConfig) -> None:
        self.config = config

    @property
    def name(self) -> str:
        """What to call its loss."""
        return f"{self.file_name()}_{self.config.on}"

    @property
    @abstractmethod
    def student_threshold(self) -> float:
        """Confidence that a pixel labeled by a network needs to count."""

    @property
    def asks(self) -> Asked:
        """Which network sees the weak views for it."""
        return "student"

    @property
    def labeler(self) -> str | None:
        """The labeler whose stored labels it reads, if any."""
        return None

    def inputs(self, run: RunConfig) -> Facts:
        """What of the run its labels depend on, beside the labels that it reads; read at `load`.

        Raises:
            DataError: It is not there.
        """
        return {}

    def load(self, run: RunConfig) -> None:
        """Reads its inputs; called once, before `label`.

        Raises:
            DataError: They are not there.
        """

    def validated(self, network: SegmentationNetwork, improved: bool, epoch: int) -> None:
        """Hears of a validation during the training; nothing comes of it by default.

        Every process of a training calls it, with equal arguments.

        Args:
            network: What was scored: the teacher. It goes on moving: copy what is to stay.
            improved: Whether its mean IoU on val is the best so far.
            epoch: Epochs that are done, that is, the number of the one to come.
        """

    def state(self) -> dict[str, Any]:
        """What a resumed training needs of it: plain values and tensors; nothing by default."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state` gave; called after `load`, before `label`."""

    @abstractmethod
    def label(self, images: CropBatch, seen: PseudoLabels) -> PseudoLabels:
        """Labels the weak view of crops.

        Args:
            images: The crops; of the role in `config.on`.
            seen: What the network that it asks sees in the weak view, without gradient.

        Returns:
            (B, S, S) labels; the confidence is the weight of the pixel's cross-entropy.
        """

    def label_partner(self, batch: TrainBatch, seen: Mapping[str, PseudoLabels]) -> PseudoLabels:
        """Labels the crops that are pasted into those of this source's role.

        Crops of the same role get labels of the same source, crops of another role those of the
        network that it asks.

        Args:
            batch: The step's crops.
            seen: What that network sees in the weak view of each.
        """
        key = batch.partner(self.config.on)
        if key in batch.roles:
            return seen[key].confident(self.student_threshold)
        return self.label(batch.crops[key], seen[key])


class OnlineSource(LabelSource):
    """Pixels where the network that it asks is confident count fully, others not at all."""

    config: OnlineConfig

    @property
    def student_threshold(self) -> float:
        """See `LabelSource.student_threshold`."""
        return self.config.threshold

    def label(self, images: CropBatch, seen: PseudoLabels) -> PseudoLabels:
        """See `LabelSource.label`."""
        return seen.confident(self.config.threshold)
