"""FixMatch: one strong view (arXiv 2001.07685; for segmentation as in arXiv 2208.09910's code)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stages.train.step.perturbations.base import Labels, Perturbation, PerturbationConfig

if TYPE_CHECKING:
    from stages.train.data.batch import TrainBatch
    from stages.train.step.strong_views import View


class FixMatch(Perturbation):
    """CutMix on a strong view, pasted from another draw of images."""

    Config = PerturbationConfig
    version = 1
    draws_twice = True
    sees_weak_views = True

    def views(self, batch: TrainBatch, role: str, labels: Labels, pasted: Labels) -> list[View]:
        """See `Perturbation.views`."""
        from stages.train.step.strong_views import boxes, strong_view

        other = strong_view(batch, batch.paste_source(role), 0, pasted)
        return [strong_view(batch, role, 0, labels).pasted(other, boxes(batch, role, 0))]
