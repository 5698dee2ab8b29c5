"""UniMatch: two strong views and one of perturbed features (arXiv 2208.09910, its code)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.section import Section
from stages.train.perturbations.base import Perturbation, StepLosses, weighted_total

if TYPE_CHECKING:
    from torch import Tensor

    from stages.train.batch import TrainBatch
    from stages.train.label_sources.base import LabelSource
    from stages.train.networks.base import SegmentationNetwork

STRONG_WEIGHT = 0.25
PERTURBED_WEIGHT = 0.5


class UniMatchConfig(Section):
    """UniMatch has no keys of its own."""


class UniMatch(Perturbation):
    """CutMix on two strong views, channel dropout on the weak one's features."""

    Config = UniMatchConfig
    version = 1

    def step(
        self,
        network: SegmentationNetwork,
        teacher: SegmentationNetwork,
        batch: TrainBatch,
        sources: Sequence[LabelSource],
    ) -> StepLosses:
        """See `Perturbation.step`.

        The forward passes are those of the published code: the second draw in eval mode; labeled
        and weak views together, the decoder on clean and perturbed features; strong views by role.
        Sources that ask the teacher get what it sees in all weak views, as in UniMatch V2.
        """
        import torch

        from stages.pseudolabel.pseudo_labels import PseudoLabels
        from stages.train.batch import MIX
        from stages.train.losses import pseudo_label_loss, supervised_loss
        from stages.train.mixing import paste

        if not batch.crops:
            supervised = supervised_loss(network.train()(batch.labeled.images), batch.labeled.mask)
            return StepLosses(supervised, {"supervised": supervised})

        asked = {source.asks for source in sources}
        seen: dict[str, dict[str, PseudoLabels]] = {name: {} for name in asked}
        with torch.no_grad():
            if "student" in asked:
                logits = network.eval()(batch.crops[MIX].weak)
                seen["student"][MIX] = PseudoLabels.from_logits(logits)
            if "teacher" in asked:
                for key, crops in batch.crops.items():
                    seen["teacher"][key] = PseudoLabels.from_logits(teacher(crops.weak))
        network.train()
        together = [batch.labeled.images, *(batch.crops[role].weak for role in batch.roles)]
        sizes = [len(images) for images in together]
        clean, perturbed = network.forward_perturbed(torch.cat(together))
        labeled_logits, *weak_logits = torch.split(clean, sizes)
        perturbed_logits = dict(zip(batch.roles, torch.split(perturbed, sizes)[1:], strict=True))
        if "student" in asked:
            for role, logits in zip(batch.roles, weak_logits, strict=True):
                seen["student"][role] = PseudoLabels.from_logits(logits.detach())

        supervised = supervised_loss(labeled_logits, batch.labeled.mask)
        terms: dict[str, Tensor] = {}
        for role in batch.roles:
            own, other = batch.crops[role], batch.crops[batch.partner(role)]
            views = map(paste, own.strong, other.strong, batch.boxes)
            strong_logits = network(torch.cat(list(views))).chunk(2)
            valid = [torch.where(box, other.valid, own.valid) for box in batch.boxes]
            for source in (source for source in sources if source.config.on == role):
                labels = source.label(own, seen[source.asks][role])
                pasted = source.label_partner(batch, seen[source.asks])
                term = PERTURBED_WEIGHT * pseudo_label_loss(
                    perturbed_logits[role], labels, own.valid
                )
                for k, box in enumerate(batch.boxes):
                    mixed = labels.pasted(pasted, box)
                    term = term + STRONG_WEIGHT * pseudo_label_loss(
                        strong_logits[k], mixed, valid[k]
                    )
                terms[source.name] = term
        ordered = [terms[source.name] for source in sources]
        total = weighted_total(supervised, ordered, sources)
        return StepLosses(total, {"supervised": supervised, **terms})
