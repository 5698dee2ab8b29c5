"""What every model is: a network that a config can name, and the weights it starts from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Annotated

from pipeline.config.components import Choice, Component, chosen_from
from pipeline.config.config_section import Facts, Section

if TYPE_CHECKING:
    from pipeline.config.vocabulary import Vocabulary
    from stages.models.segmenters.networks.base import SegmentationNetwork


class Model(Component, ABC):
    """Builds one kind of network.

    Args:
        config: The model's own keys, an instance of its `Config`.
    """

    def __init__(self, config: Section) -> None:
        self.config = config

    @abstractmethod
    def weights_facts(self) -> Facts:
        """Which weights a training starts from: tag, or checksum of a file. No torch needed.

        Raises:
            WeightsError: A local file is missing.
        """

    def vocabulary_facts(self, vocabulary: Vocabulary) -> Facts:
        """What of the class list a training depends on: its names, unless the network asks more."""
        return vocabulary.class_facts()

    @abstractmethod
    def build(self, vocabulary: Vocabulary, *, pretrained: bool = True) -> SegmentationNetwork:
        """The network on the CPU, its encoder with pretrained weights if the config asks for them.

        Args:
            vocabulary: The classes, C of them.
            pretrained: Whether such weights are wanted: not where a checkpoint follows.

        Raises:
            ConfigError: A key names something the field library does not have.
            WeightsError: The weights are missing, cannot be downloaded, or belong to another model.
        """


ModelChoice = Annotated[Choice[Model], *chosen_from("stages.models.segmenters.builders", Model)]
"""A config's key for a model: its name, or a mapping of `name` and its keys."""
