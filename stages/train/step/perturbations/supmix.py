"""SupMix: labeled pixels of chosen classes, pasted with their true labels (arXiv 2604.07122).

What the paper leaves open is our completion.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.errors import ConfigError
from stages.train.step.perturbations.base import Labels, Perturbation, PerturbationConfig

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.config.vocabulary import Vocabulary
    from stages.train.data.batch import TrainBatch
    from stages.train.step.strong_views import Mixture


class SupMixConfig(PerturbationConfig):
    """Keys of the perturbation `supmix`."""

    classes: tuple[str, ...] | None = None
    """Names of the classes to paste, the rare ones; null = a random half of each image's."""


class SupMix(Perturbation):
    """Classes of a labeled crop, wherever they are in it, pasted onto a crop without labels."""

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

    def mixtures(
        self, batch: TrainBatch, role: str, labels: Labels, pasted: Labels
    ) -> list[Mixture]:
        """See `Perturbation.mixtures`."""
        import torch

        from pipeline.config.vocabulary import IGNORE
        from stages.labels.pseudo_labels import PseudoLabels
        from stages.train.step.strong_views import Mixture

        crops, truth = batch.crops[role], batch.labeled.mask
        certain = PseudoLabels(truth, torch.ones_like(truth, dtype=torch.float32)).certain()
        labeled = Mixture(batch.labeled.pixels, truth != IGNORE, dict.fromkeys(labels, certain))
        own = Mixture(crops.pixels, crops.valid, labels)
        chosen = self._chosen(truth, batch, role)
        return [own.pasted(labeled, chosen).seen(batch, role, recolor=True)]

    def _chosen(self, truth: Tensor, batch: TrainBatch, role: str) -> Tensor:
        """(B, S, S) bool: the labeled pixels to paste; never those that the truth ignores."""
        import torch

        from stages.train.step.pasting import half_of_the_classes

        if self.config.classes is None:
            return half_of_the_classes(truth, batch.draws, f"labeled classes onto {role}")
        names = self.vocabulary.class_names
        ids = torch.tensor([names.index(name) for name in self.config.classes], dtype=truth.dtype)
        return torch.isin(truth, ids.to(truth.device))
