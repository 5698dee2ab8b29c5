"""One training step, from a batch of crops to the total loss; the same for every method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from stages.labels.pseudo_labels import PseudoLabels
from stages.models.segmenters.networks.base import running_statistics
from stages.train.data.batch import SECOND_DRAW, TrainBatch
from stages.train.step.clean_forward import LABELED, CleanOutputs, clean_forward
from stages.train.step.discriminator import Features
from stages.train.step.label_sources.base import LabelSource
from stages.train.step.parts import TrainingParts
from stages.train.step.perturbations.base import Labels
from stages.train.step.schedule import StepPosition
from stages.train.step.strong_views import View
from stages.train.step.weak_predictions import WeakPredictions


@dataclass(frozen=True)
class StepLosses:
    """The losses of one step, with what the log and the discriminator need of it.

    Attributes:
        total: Scalar that the step minimizes; NaN if a prediction that gives labels is not finite.
        terms: Unweighted scalars: `supervised`, one of each label source, `adversarial`.
        labels: Labels of the weak views by source; the confidence is the weight of the pixel.
        features: Features to train the discriminator on, if there is one.
    """

    total: Tensor
    terms: Mapping[str, Tensor]
    labels: Labels = field(default_factory=dict)
    features: Features | None = None


def training_step(parts: TrainingParts, batch: TrainBatch, position: StepPosition) -> StepLosses:
    """Computes the losses of one step, with their graph.

    Args:
        parts: The student is in train mode afterwards; the teacher does not change.
        batch: Has crops of every role that a source labels.
        position: The step within the training.
    """
    perturbation, discriminator = parts.perturbation, parts.discriminator
    sources = [source for source in parts.sources if source.is_ready]
    paste_from = {}
    if perturbation.draws_twice:
        paste_from = {source.name: batch.paste_source(source.config.on) for source in sources}

    # Views and labels. The second draw is predicted in eval mode: it has to come before the
    # training passes, which move the running statistics of BatchNorm.
    weak = WeakPredictions(parts.student, parts.teacher, batch)
    pasted = {
        source.name: source.label(batch, SECOND_DRAW, weak)
        for source in sources
        if paste_from.get(source.name) == SECOND_DRAW
    }
    clean = _forward_clean_views(parts, batch)
    if perturbation.sees_weak_views:
        for role in batch.roles:
            weak.store("student", role, clean.logits[role])
    pasted |= {
        source.name: source.label(batch, paste_from[source.name], weak)
        for source in sources
        if source.name in paste_from and source.name not in pasted
    }
    labels = {source.name: source.label(batch, source.config.on, weak) for source in sources}

    # Losses.
    terms = {"supervised": parts.supervised_loss.measure(clean.logits[LABELED], batch.labeled.mask)}
    for role in batch.roles:
        if own := [source for source in sources if source.config.on == role]:
            views = perturbation.views(batch, role, _of(own, labels), _of(own, pasted))
            logits = _forward_strong_views(parts, batch, views)
            for source in own:
                losses = [
                    weight * source.loss(view_logits, view.labels[source.name], view.valid)
                    for weight, view_logits, view in zip(
                        perturbation.strong_weights, logits, views, strict=True
                    )
                ]
                if weight := perturbation.perturbed_weight:
                    valid = batch.crops[role].valid
                    loss = source.loss(clean.perturbed[role], labels[source.name], valid)
                    losses.append(weight * loss)
                terms[source.name] = torch.stack(losses).sum()

    # Total.
    total = _weighted_total(terms, sources, position, is_mean=perturbation.averages)
    total = total.where(weak.is_finite.to(total.device), torch.nan)
    features = None
    if discriminator is not None:
        others = torch.cat([clean.maps[role] for role in batch.roles])
        features = Features(clean.maps[LABELED], others)
        terms["adversarial"] = discriminator.adversarial_loss(features)
        total = total + discriminator.weight * terms["adversarial"]

    return StepLosses(total, terms, _weighted_labels(batch, sources, labels), features)


def _forward_clean_views(parts: TrainingParts, batch: TrainBatch) -> CleanOutputs:
    """The labeled crops, and the weak views if the perturbation or discriminator needs them."""
    separate_domains = parts.perturbation.config.separate_domains
    groups = [{LABELED: batch.labeled.images}]
    if parts.perturbation.sees_weak_views or parts.discriminator is not None:
        for role in batch.roles:
            if separate_domains and role == "ood":
                groups.append({role: batch.crops[role].weak})
            else:
                groups[0][role] = batch.crops[role].weak
    return clean_forward(
        parts.student,
        groups,
        batch.random,
        perturb=parts.perturbation.perturbed_weight > 0 and bool(batch.roles),
        separate_domains=separate_domains,
    )


def _forward_strong_views(
    parts: TrainingParts, batch: TrainBatch, views: Sequence[View]
) -> Sequence[Tensor]:
    """Logits (B, C, S, S) of each strong view of a role, in one forward pass."""
    student, perturbation = parts.student.train(), parts.perturbation
    with running_statistics(student, moving=not perturbation.config.separate_domains):
        images = torch.cat([view.images for view in views])
        return perturbation.strong_logits(student, images, batch).chunk(len(views))


def _weighted_total(
    terms: Mapping[str, Tensor],
    sources: Sequence[LabelSource],
    position: StepPosition,
    *,
    is_mean: bool,
) -> Tensor:
    """``(L_x + sum_k w_k L_k) / (1 + sum_k w_k)`` if `is_mean`, else without the division.

    With one source of weight 1 this is UniMatch's total; with the second source of PrevMatch or
    SemiOVS it is theirs (arXiv 2208.09910, 2405.20610, 2507.03302). The loss of an auxiliary source
    is added afterwards, as SemiVL adds its guidance (arXiv 2311.16241).
    """
    weights = {source.name: source.weight(position) for source in sources}
    main = [source.name for source in sources if not source.is_auxiliary]
    auxiliary = [source.name for source in sources if source.is_auxiliary]
    total = terms["supervised"] + sum(weights[name] * terms[name] for name in main)
    if is_mean:
        total = total / (1 + sum(weights[name] for name in main))
    return total + sum(weights[name] * terms[name] for name in auxiliary)


def _weighted_labels(
    batch: TrainBatch, sources: Sequence[LabelSource], labels: Labels
) -> dict[str, PseudoLabels]:
    """The labels of each source with the weight of each pixel as its confidence."""
    return {
        source.name: PseudoLabels(
            labels[source.name].mask,
            source.weigh(labels[source.name], batch.crops[source.config.on].valid),
        )
        for source in sources
    }


def _of(sources: Sequence[LabelSource], labels: Labels) -> Labels:
    return {source.name: labels[source.name] for source in sources if source.name in labels}
