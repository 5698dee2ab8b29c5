"""Labels of the crops by a frozen labeler: the CLIP guidance of SemiVL (arXiv 2311.16241)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pipeline.config.components import Choice, chosen_from
from pipeline.config.config_section import Facts
from pipeline.errors import ConfigError
from stages.pseudolabel.labelers.base import Labeler
from stages.pseudolabel.output import labeler_cache
from stages.train.step.label_sources.base import LabelSource, LabelSourceConfig, Threshold, Weight
from stages.train.step.schedule import Schedule

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from pipeline.config.config import Config as RunConfig
    from stages.labels.pseudo_labels import PseudoLabels
    from stages.train.data.batch import TrainBatch
    from stages.train.step.schedule import Length
    from stages.train.step.weak_predictions import WeakPredictions


class GuidanceConfig(LabelSourceConfig):
    """Keys of the source `guidance`."""

    labeler: Annotated[Choice[Labeler], *chosen_from("stages.pseudolabel.labelers", Labeler)]
    """A labeler of stage one with its keys, such as dense_clip, that runs on the crops."""
    threshold: Threshold = 0.9
    """Least confidence of a pixel that counts."""
    weight: Weight = 0.1
    """Weight of its loss, which is added to the mean of the other losses."""
    schedule: Schedule = "linear_down"
    """See `LabelSourceConfig`."""


class GuidanceSource(LabelSource):
    """Labels the crops during the training; nothing is stored.

    Its loss is the mean over all pixels, including padding (`mean_all` in SemiVL's code).
    """

    Config = GuidanceConfig
    version = 1
    config: GuidanceConfig
    is_auxiliary = True
    _frozen: Labeler | None = None

    def shows(self, run: RunConfig) -> frozenset[int] | None:
        """See `LabelSource.shows`: what its labeler can label."""
        return self._create(run).shows()

    def doubts(self, length: Length) -> list[str]:
        """See `LabelSource.doubts`: a threshold that hardly a pixel reaches."""
        if self.config.threshold < 1:
            return []
        return ["`threshold: 1` leaves only pixels of confidence 1, which are rare or none"]

    def inputs(self, run: RunConfig) -> Facts:
        """See `LabelSource.inputs`."""
        labeler = self._create(run)
        facts = {**labeler.weights_facts(), **labeler.vocabulary_facts()}
        return {f"inputs.{self.name}.{key}": value for key, value in facts.items()}

    def load(self, run: RunConfig, device: torch.device) -> None:
        """See `LabelSource.load`."""
        self._frozen = self._create(run)
        self._frozen.load(device, labeler_cache(run))

    def label(self, batch: TrainBatch, key: str, weak: WeakPredictions) -> PseudoLabels:
        """See `LabelSource.label`."""
        import torch

        from stages.labels.pseudo_labels import PseudoLabels
        from stages.pseudolabel.labelers.base import ImageBatch

        assert self._frozen is not None, "load comes before label"
        crops = batch.crops[key]
        count, _, height, width = crops.pixels.shape
        pixels = (255 * crops.pixels).round().to(torch.uint8)
        with torch.no_grad(), torch.autocast(pixels.device.type, enabled=False):
            found = self._frozen(ImageBatch(pixels, ((height, width),) * count))
        sure = (found.confidence >= self.config.threshold) & crops.valid
        return PseudoLabels(found.mask.to(sure.device), sure.float().to(sure.device))

    def loss(self, logits: Tensor, labels: PseudoLabels, valid: Tensor) -> Tensor:
        """See `LabelSource.loss`."""
        import torch

        from stages.train.step.losses import pseudo_label_loss

        everywhere = torch.ones_like(valid)
        return pseudo_label_loss(logits, labels.mask, self.weigh(labels, valid), everywhere)

    def _create(self, run: RunConfig) -> Labeler:
        labeler = self.config.labeler.create(run.vocabulary)
        if labeler.needs_proposals or labeler.needs_label_files or labeler.members:
            raise ConfigError(
                f"{self.config.labeler.name} cannot label crops: it reads stored results of images",
                where=f"{run.path}: label source guidance",
                fix="use a labeler that needs only pixels, such as dense_clip",
            )
        return labeler
