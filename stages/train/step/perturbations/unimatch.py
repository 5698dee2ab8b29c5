"""UniMatch: two strong views and one of perturbed features (arXiv 2208.09910, its code)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stages.train.step.perturbations.base import Labels, Perturbation, PerturbationConfig

if TYPE_CHECKING:
    from stages.train.data.batch import TrainBatch
    from stages.train.step.strong_views import Mixture


class UniMatch(Perturbation):
    """CutMix on two strong views, channel dropout on the weak one's features.

    The forward passes are those of the published code: the second draw in eval mode; labeled and
    weak views together, the decoder on clean and perturbed features; strong views by role.
    """

    Config = PerturbationConfig
    version = 2
    strong_weights = (0.25, 0.25)
    perturbed_weight = 0.5
    draws_twice = True
    sees_weak_views = True

    def mixtures(
        self, batch: TrainBatch, role: str, labels: Labels, pasted: Labels
    ) -> list[Mixture]:
        """See `Perturbation.mixtures`."""
        from stages.train.step.strong_views import boxes, strong_mixture

        mixed = []
        for number, _ in enumerate(self.strong_weights):
            partner = strong_mixture(batch, batch.partner(role), number, pasted)
            own = strong_mixture(batch, role, number, labels)
            mixed.append(own.pasted(partner, boxes(batch, role, number)))
        return mixed
