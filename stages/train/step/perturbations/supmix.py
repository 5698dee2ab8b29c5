"""SupMix: labeled pixels of chosen classes, pasted with their true labels (arXiv 2604.07122).

Where the paper leaves details open, they are our choice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.errors import ConfigError
from stages.train.step.perturbations.base import Labels, Perturbation, PerturbationConfig

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.config.vocabulary import Vocabulary
    from stages.train.data.batch import TrainBatch
    from stages.train.step.strong_views import View


class SupMixConfig(PerturbationConfig):
    """Keys of the perturbation `supmix`."""

    classes: tuple[str, ...] | None = None
    """Names of the (rare) classes to paste; null = a random half of the classes of each image."""


class SupMix(Perturbation):
    """Pastes the pixels of chosen classes from a labeled crop onto a crop without labels."""

    Config = SupMixConfig
    version = 1
    config: SupMixConfig
    averages = False

    def __init__(self, config: SupMixConfig, vocabulary: Vocabulary) -> None:
        super().__init__(config, vocabulary)
        for name in config.classes or ():
            if name not in vocabulary.class_names:
                known = ", ".join(vocabulary.class_names)
                where = f"perturbation supmix, vocabulary {vocabulary.name}"
                raise ConfigError(f"no class {name!r}", where=where, fix=f"use some of: {known}")

    def views(self, batch: TrainBatch, role: str, labels: Labels, pasted: Labels) -> list[View]:
        """See `Perturbation.views`."""
        import torch

        from pipeline.config.vocabulary import IGNORE
        from stages.labels.pseudo_labels import PseudoLabels
        from stages.train.step.strong_views import View

        crops, truth = batch.crops[role], batch.labeled.mask
        certain = PseudoLabels(truth, torch.ones_like(truth, dtype=torch.float32)).certain()
        labeled = View(batch.labeled.pixels, truth != IGNORE, dict.fromkeys(labels, certain))
        own = View(crops.pixels, crops.valid, labels)
        chosen = self._chosen(truth, batch, role)
        return [own.pasted(labeled, chosen).normalized(batch, role, recolor=True)]

    def _chosen(self, truth: Tensor, batch: TrainBatch, role: str) -> Tensor:
        """(B, S, S) bool: the labeled pixels to paste; never ignored ones."""
        import torch

        from stages.train.step.pasting import half_of_the_classes

        if self.config.classes is None:
            return half_of_the_classes(truth, batch.random, f"labeled classes onto {role}")
        names = self.vocabulary.class_names
        ids = torch.tensor([names.index(name) for name in self.config.classes], dtype=truth.dtype)
        return torch.isin(truth, ids.to(truth.device))
