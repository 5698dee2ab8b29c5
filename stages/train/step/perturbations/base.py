"""What every perturbation is: the losses of one training step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from pipeline.config.components import Component
from pipeline.config.config_section import Section

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.config.vocabulary import Vocabulary
    from stages.labels.pseudo_labels import PseudoLabels
    from stages.models.segmenters.networks.base import SegmentationNetwork
    from stages.train.data.batch import TrainBatch
    from stages.train.step.clean_forward import CleanPass
    from stages.train.step.discriminator import Features
    from stages.train.step.label_sources.base import LabelSource
    from stages.train.step.parts import Learner
    from stages.train.step.schedule import Moment
    from stages.train.step.strong_views import Mixture

Labels = Mapping[str, "PseudoLabels"]
"""Labels (B, S, S) by the name of their source."""


class PerturbationConfig(Section):
    """Keys that every perturbation has."""

    separate_domains: bool = False
    """Whether BatchNorm keeps the domains apart: OOD images pass on their own, and the running
    statistics take in clean views of the target domain alone. False is the published code."""


@dataclass(frozen=True)
class StepLosses:
    """The losses of one step, scalars, and what they were made of.

    Attributes:
        total: What the step minimizes.
        terms: By name, before weights: `supervised`, each label source's, `adversarial`.
        labels: What each source said of the weak views of its role, with its pixels' weights.
        features: What a discriminator learns from, if there is one.
    """

    total: Tensor
    terms: Mapping[str, Tensor]
    labels: Labels = field(default_factory=dict)
    features: Features | None = None


@dataclass(frozen=True)
class _Seen:
    """What is known of a step's crops before strong views are made.

    Attributes:
        clean: The pass of clean views.
        labels: What each source says of the weak views of its role.
        pasted: What it says of the crops of `TrainBatch.partner`; empty unless `draws_twice`.
    """

    clean: CleanPass
    labels: Labels
    pasted: Labels


class Perturbation(Component, ABC):
    """Perturbs a batch and asks for consistency with the labels of every source.

    Subclasses say which views there are and what is pasted into them; what a step does with these
    is the same for all.

    Args:
        config: Its keys, an instance of its `Config`.
        vocabulary: The classes.

    Attributes:
        strong_weights: Weight of each strong view's loss.
        perturbed_weight: Weight of the loss of perturbed features; 0 = there are none.
        draws_twice: Whether it pastes from a second draw of the first role's images.
        sees_weak_views: Whether the weak views pass along with the labeled crops, in train mode.
        least_crops: How many crops of a role a micro-batch needs, so that there is another one to
            paste from.
        averages: Whether the total is the weighted mean of the supervised loss and the sources',
            instead of their weighted sum.
    """

    strong_weights: ClassVar[tuple[float, ...]] = (1.0,)
    perturbed_weight: ClassVar[float] = 0.0
    draws_twice: ClassVar[bool] = False
    sees_weak_views: ClassVar[bool] = False
    least_crops: ClassVar[int] = 1
    averages: ClassVar[bool] = True

    def __init__(self, config: PerturbationConfig, vocabulary: Vocabulary) -> None:
        self.config = config
        self.vocabulary = vocabulary

    @abstractmethod
    def mixtures(
        self, batch: TrainBatch, role: str, labels: Labels, pasted: Labels
    ) -> list[Mixture]:
        """The strong views of a role's crops with what is pasted into them.

        Args:
            batch: The step's crops.
            role: Whose crops.
            labels: What the role's sources say of their weak views.
            pasted: What they say of the crops of `TrainBatch.partner`; empty unless `draws_twice`.

        Returns:
            As many as there are `strong_weights`.
        """

    def strong_logits(
        self, student: SegmentationNetwork, images: Tensor, batch: TrainBatch
    ) -> Tensor:
        """Logits (N, C, S, S) of all strong views (N, 3, S, S) of a role, view after view."""
        logits: Tensor = student(images)
        return logits

    def step(self, learner: Learner, batch: TrainBatch, moment: Moment) -> StepLosses:
        """The losses of one step, with the gradient's graph behind them.

        Args:
            learner: Its student is in train mode afterwards, its teacher stays as it is.
            batch: With crops of every role that a source labels.
            moment: Where in the training this is.
        """
        import torch

        from stages.labels.pseudo_labels import PseudoLabels
        from stages.train.step.clean_forward import LABELED
        from stages.train.step.discriminator import Features

        ready = [each for each in learner.sources if each.is_ready]
        seen = self._see(learner, batch, ready)
        mask = batch.labeled.mask
        terms = {"supervised": learner.supervised_loss.measure(seen.clean.logits[LABELED], mask)}
        for role in batch.roles:
            if own := [each for each in ready if each.config.on == role]:
                terms |= self._consistency(learner, batch, role, own, seen)
        total = self._total(terms, ready, moment)
        features = None
        if learner.discriminator is not None:
            others = torch.cat([seen.clean.maps[role] for role in batch.roles])
            features = Features(seen.clean.maps[LABELED], others)
            terms["adversarial"] = learner.discriminator.adversarial_loss(features)
            total = total + learner.discriminator.weight * terms["adversarial"]
        counted = {}
        for each in ready:
            found, valid = seen.labels[each.name], batch.crops[each.config.on].valid
            counted[each.name] = PseudoLabels(found.mask, each.weigh(found, valid))
        return StepLosses(total, terms, counted, features)

    def _see(self, learner: Learner, batch: TrainBatch, sources: Sequence[LabelSource]) -> _Seen:
        """The pass of clean views, and what sources say of weak ones."""
        from stages.train.data.batch import MIX
        from stages.train.step.weak_predictions import Sight

        sight = Sight(learner.student, learner.teacher, batch)
        pasted: dict[str, PseudoLabels] = {}
        if self.draws_twice:
            # Before the training passes move the running statistics that eval mode goes by.
            for each in sources:
                if batch.partner(each.config.on) == MIX:
                    pasted[each.name] = each.label(batch, MIX, sight)
        clean = self._clean_pass(learner, batch)
        for role in batch.roles if self.sees_weak_views else ():
            sight.note("student", role, clean.logits[role])
        for each in sources if self.draws_twice else ():
            if each.name not in pasted:
                pasted[each.name] = each.label(batch, batch.partner(each.config.on), sight)
        labels = {each.name: each.label(batch, each.config.on, sight) for each in sources}
        return _Seen(clean, labels, pasted)

    def _consistency(
        self,
        learner: Learner,
        batch: TrainBatch,
        role: str,
        sources: Sequence[LabelSource],
        seen: _Seen,
    ) -> dict[str, Tensor]:
        """The loss of each of a role's sources, by its name."""
        import torch

        from stages.models.segmenters.networks.base import running_statistics

        labels = {each.name: seen.labels[each.name] for each in sources}
        pasted = {each.name: seen.pasted[each.name] for each in sources if seen.pasted}
        views = self.mixtures(batch, role, labels, pasted)
        learner.student.train()
        with running_statistics(learner.student, moving=not self.config.separate_domains):
            images = torch.cat([view.images for view in views])
            logits = self.strong_logits(learner.student, images, batch).chunk(len(views))
        terms = {}
        for each in sources:
            losses = [
                share * each.loss(own, view.labels[each.name], view.valid)
                for share, own, view in zip(self.strong_weights, logits, views, strict=True)
            ]
            if self.perturbed_weight:
                own, valid = seen.clean.perturbed[role], batch.crops[role].valid
                losses.append(self.perturbed_weight * each.loss(own, labels[each.name], valid))
            terms[each.name] = torch.stack(losses).sum()
        return terms

    def _clean_pass(self, learner: Learner, batch: TrainBatch) -> CleanPass:
        from stages.train.step.clean_forward import LABELED, clean_pass

        groups = [{LABELED: batch.labeled.images}]
        if self.sees_weak_views or learner.discriminator is not None:
            for role in batch.roles:
                if self.config.separate_domains and role == "ood":
                    groups.append({role: batch.crops[role].weak})
                else:
                    groups[0][role] = batch.crops[role].weak
        return clean_pass(
            learner.student,
            groups,
            batch.draws,
            perturb=self.perturbed_weight > 0 and bool(batch.roles),
            apart=self.config.separate_domains,
        )

    def _total(
        self, terms: Mapping[str, Tensor], sources: Sequence[LabelSource], moment: Moment
    ) -> Tensor:
        """``(L_x + sum_k w_k L_k) / (1 + sum_k w_k)``, or without the division.

        With one source of weight 1 this is UniMatch's total, with PrevMatch's or SemiOVS's second
        source theirs (arXiv 2208.09910, 2405.20610, 2507.03302). The loss of a source that `adds`
        comes on top, as SemiVL's guidance does (arXiv 2311.16241).
        """
        weights = {each.name: each.weight(moment) for each in sources}
        inside = [each.name for each in sources if not each.adds]
        total = terms["supervised"] + sum(weights[name] * terms[name] for name in inside)
        if self.averages:
            total = total / (1 + sum(weights[name] for name in inside))
        return total + sum(weights[each.name] * terms[each.name] for each in sources if each.adds)
