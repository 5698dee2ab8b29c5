"""FixMatch: one strong view (arXiv 2001.07685; for segmentation as in arXiv 2208.09910's code)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stages.train.step.perturbations.base import Labels, Perturbation, PerturbationConfig

if TYPE_CHECKING:
    from stages.train.data.batch import TrainBatch
    from stages.train.step.strong_views import Mixture


class FixMatch(Perturbation):
    """CutMix on a strong view, pasted from another draw of images."""

    Config = PerturbationConfig
    version = 1
    draws_twice = True
    sees_weak_views = True

    def mixtures(
        self, batch: TrainBatch, role: str, labels: Labels, pasted: Labels
    ) -> list[Mixture]:
        """See `Perturbation.mixtures`."""
        from stages.train.step.strong_views import boxes, strong_mixture

        partner = strong_mixture(batch, batch.partner(role), 0, pasted)
        return [strong_mixture(batch, role, 0, labels).pasted(partner, boxes(batch, role, 0))]
