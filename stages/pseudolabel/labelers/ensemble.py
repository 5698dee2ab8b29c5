"""Merged labels of several labelers: by agreement, by confidence, or by mean probability."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from pipeline.config.config_section import Name, Section
from stages.pseudolabel.labelers.base import Labeler

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from stages.labels.pseudo_labels import PseudoLabels
    from stages.pseudolabel.labelers.base import ImageBatch


class EnsembleConfig(Section):
    """Keys of the labeler `ensemble`."""

    members: Annotated[tuple[Name, ...], Field(min_length=2)]
    """Labelers of the section, by name. Their stored labels are read; no model runs again."""
    rule: Literal["agreement", "confidence", "probabilities"]
    """agreement: the class with the most votes, or ignore if it has fewer than `quorum` votes;
    confidence: the class of the most confident member; probabilities: the most probable class of
    the members' weighted mean, where the rest of a confidence is spread over the other classes."""
    quorum: Annotated[int, Field(ge=1)] | None = None
    """For `agreement`: how many members must vote for the class. Default: all."""
    weights: tuple[Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)], ...] | None = None
    """For `probabilities`: weights of the members, in their order. Default: equal weights."""

    @model_validator(mode="after")
    def _check_rule(self) -> Self:
        if len(set(self.members)) < len(self.members):
            raise ValueError("list each of `members` once")
        if self.quorum is not None and self.rule != "agreement":
            raise ValueError("remove `quorum`: only `rule: agreement` uses it")
        if self.quorum is not None and self.quorum > len(self.members):
            raise ValueError(f"lower `quorum`: there are {len(self.members)} members")
        if self.weights is not None and self.rule != "probabilities":
            raise ValueError("remove `weights`: only `rule: probabilities` uses them")
        if self.weights is not None and len(self.weights) != len(self.members):
            raise ValueError(f"set {len(self.members)} `weights`, one per member")
        return self


class Ensemble(Labeler):
    """Merges the stored labels of its members.

    The store has a class and a confidence per pixel, but no probabilities of the other classes:
    `rule: probabilities` gives those equal shares of the rest.
    """

    Config = EnsembleConfig
    version = 1
    config: EnsembleConfig

    @property
    def members(self) -> tuple[str, ...]:
        """See `Labeler.members`."""
        return self.config.members

    def label(self, images: ImageBatch) -> PseudoLabels:
        """See `Labeler.label`."""
        import torch

        return images.place(self._voted(images), torch.device("cpu"))

    def _voted(self, images: ImageBatch) -> Iterator[tuple[Tensor, Tensor]]:
        """(H, W) mask and (H, W) confidence of each image."""
        import torch

        from stages.pseudolabel.pixels import voting

        config = self.config
        for index, (height, width) in enumerate(images.sizes):
            image = (index, slice(height), slice(width))
            masks = torch.stack([labels.mask[image] for labels in images.members])
            confidences = torch.stack([labels.confidence[image] for labels in images.members])
            if config.rule == "agreement":
                yield voting.agreement(masks, confidences, config.quorum or len(masks))
            elif config.rule == "confidence":
                yield voting.surest(masks, confidences)
            else:
                weights = torch.tensor(config.weights or [1.0] * len(masks))
                classes = self.vocabulary.num_classes
                yield voting.mean_probability(masks, confidences, weights, classes)
