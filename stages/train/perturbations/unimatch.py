"""UniMatch: two strong views and one of perturbed features (arXiv 2208.09910, its code)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.section import Section
from stages.train.perturbations.base import Perturbation, StepLosses, weighted_total

if TYPE_CHECKING:
    from torch import Tensor

    from stages.segmenters.networks.base import SegmentationNetwork
    from stages.train.batch import TrainBatch
    from stages.train.label_sources.base import LabelSource

STRONG_WEIGHT = 0.25
PERTURBED_WEIGHT = 0.5
_LABELED = "labeled"


class UniMatchConfig(Section):
    """Keys of the perturbation `unimatch`."""

    separate_domains: bool = False
    """Whether BatchNorm keeps the domains apart: OOD images pass on their own, and the running
    statistics take in clean views of the target domain alone. False is the published code."""


class UniMatch(Perturbation):
    """CutMix on two strong views, channel dropout on the weak one's features."""

    Config = UniMatchConfig
    version = 1
    config: UniMatchConfig

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
        With separate domains the weak views of OOD images have a pass of their own, the decoder one
        each for clean and perturbed features, and what is not a clean view of the target domain
        moves no running statistics. Sources that ask the teacher get what it sees in all weak
        views, as in UniMatch V2.
        """
        import torch

        from stages.pseudolabel.pseudo_labels import PseudoLabels
        from stages.segmenters.networks.base import running_statistics
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
        apart = self.config.separate_domains
        clean_logits: dict[str, Tensor] = {}
        perturbed_logits: dict[str, Tensor] = {}
        for views in self._passes(batch):
            with running_statistics(network, moving=_LABELED in views or not apart):
                logits = network.forward_perturbed(torch.cat([*views.values()]), apart=apart)
            sizes = [len(images) for images in views.values()]
            clean, perturbed = (
                dict(zip(views, torch.split(part, sizes), strict=True)) for part in logits
            )
            clean_logits |= clean
            perturbed_logits |= perturbed
        if "student" in asked:
            for role in batch.roles:
                seen["student"][role] = PseudoLabels.from_logits(clean_logits[role].detach())

        supervised = supervised_loss(clean_logits[_LABELED], batch.labeled.mask)
        terms: dict[str, Tensor] = {}
        for role in batch.roles:
            own, other = batch.crops[role], batch.crops[batch.partner(role)]
            strong = map(paste, own.strong, other.strong, batch.boxes)
            with running_statistics(network, moving=not apart):
                strong_logits = network(torch.cat(list(strong))).chunk(2)
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

    def _passes(self, batch: TrainBatch) -> list[dict[str, Tensor]]:
        """The labeled images and the weak views by role, as they pass through the network."""
        first = {_LABELED: batch.labeled.images}
        first |= {role: batch.crops[role].weak for role in batch.roles}
        if self.config.separate_domains and "ood" in first:
            return [{key: first[key] for key in first if key != "ood"}, {"ood": first["ood"]}]
        return [first]
