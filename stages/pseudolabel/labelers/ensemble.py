"""Labels of several labelers made one: by agreement, by confidence, or by their probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from pipeline.config.config_section import Facts, Name, Section
from stages.pseudolabel.labelers.base import Labeler

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from stages.labels.pseudo_labels import PseudoLabels
    from stages.pseudolabel.labelers.base import ImageBatch


class EnsembleConfig(Section):
    """Keys of the labeler `ensemble`."""

    members: Annotated[tuple[Name, ...], Field(min_length=2)]
    """Labelers of the section, by name; their stored labels are read, no model is run."""
    rule: Literal["agreement", "confidence", "probabilities"]
    """agreement: the class that most members name, where at least `quorum` do, elsewhere ignore;
    confidence: the class of the member that is surest; probabilities: the most probable class of
    their weighted mean, each spreading what its confidence leaves over the other classes."""
    quorum: Annotated[int, Field(ge=1)] | None = None
    """Of `agreement`: how many members must name the class. Default: all."""
    weights: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...] | None = None
    """Of `probabilities`: what each member counts, in their order. Default: all the same."""

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if len(set(self.members)) < len(self.members):
            raise ValueError("name each of `members` once")
        if self.quorum is not None and self.rule != "agreement":
            raise ValueError("leave out `quorum`: it belongs to `rule: agreement`")
        if self.quorum is not None and self.quorum > len(self.members):
            raise ValueError(f"lower `quorum`: there are {len(self.members)} members")
        if self.weights is not None and self.rule != "probabilities":
            raise ValueError("leave out `weights`: they belong to `rule: probabilities`")
        if self.weights is not None and len(self.weights) != len(self.members):
            raise ValueError(f"give {len(self.members)} `weights`, one a member")
        return self


class Ensemble(Labeler):
    """Makes one label of those that its members have stored.

    Of a member there is a class and a confidence for each pixel, and no probability of the other
    classes: where `rule: probabilities` wants them, they share the rest evenly.
    """

    Config = EnsembleConfig
    version = 1
    config: EnsembleConfig

    @property
    def members(self) -> tuple[str, ...]:
        """See `Labeler.members`."""
        return self.config.members

    def weights_facts(self) -> Facts:
        """See `Labeler.weights_facts`; it has none but its members'."""
        return {}

    def vocabulary_facts(self) -> Facts:
        """See `Labeler.vocabulary_facts`; no text is asked for."""
        return self.vocabulary.class_facts()

    def label(self, images: ImageBatch) -> PseudoLabels:
        """See `Labeler.label`."""
        import torch

        return images.place(self._voted(images), torch.device("cpu"))

    def _voted(self, images: ImageBatch) -> Iterator[tuple[Tensor, Tensor]]:
        """Mask and confidence of each image."""
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
