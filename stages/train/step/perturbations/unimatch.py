"""UniMatch: two strong views and one view of perturbed features (arXiv 2208.09910, its code)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stages.train.step.perturbations.base import Labels, Perturbation, PerturbationConfig

if TYPE_CHECKING:
    from stages.train.data.batch import TrainBatch
    from stages.train.step.strong_views import View


class UniMatch(Perturbation):
    """CutMix on two strong views, channel dropout on the features of the weak view.

    The forward passes are those of the published code: first the second draw in eval mode; then
    labeled and weak views together, with clean and perturbed features; then strong views by role.
    """

    Config = PerturbationConfig
    version = 2
    strong_weights = (0.25, 0.25)
    perturbed_weight = 0.5
    draws_twice = True
    sees_weak_views = True

    def views(self, batch: TrainBatch, role: str, labels: Labels, pasted: Labels) -> list[View]:
        """See `Perturbation.views`."""
        from stages.train.step.strong_views import boxes, strong_view

        mixed = []
        for number, _ in enumerate(self.strong_weights):
            other = strong_view(batch, batch.paste_source(role), number, pasted)
            own = strong_view(batch, role, number, labels)
            mixed.append(own.pasted(other, boxes(batch, role, number)))
        return mixed
