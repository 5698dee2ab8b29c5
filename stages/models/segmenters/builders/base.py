"""The base of all builders: a network that a config can name, and the weights it starts from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, TypeAlias

from pydantic import JsonValue

from pipeline.config.components import Choice, Component, chosen_from
from pipeline.config.config_section import Facts, Section

if TYPE_CHECKING:
    from pipeline.config.vocabulary import Vocabulary
    from stages.models.segmenters.networks.base import SegmentationNetwork

Architecture: TypeAlias = Mapping[str, JsonValue]
"""Everything that a builder needs besides its keys to build a network without other files."""


class ModelBuilder(Component, ABC):
    """Builds one kind of network.

    Args:
        config: The builder's own keys, an instance of its `Config`.
    """

    def __init__(self, config: Section) -> None:
        self.config = config

    @abstractmethod
    def weights_facts(self) -> Facts:
        """Tag of the weights that a training starts from, or checksum of their file; without torch.

        Raises:
            WeightsError: A local file is missing.
        """

    def vocabulary_facts(self, vocabulary: Vocabulary) -> Facts:
        """Facts of the class list that a training depends on; by default the names."""
        return vocabulary.class_facts()

    def architecture(self) -> dict[str, JsonValue]:
        """Facts that `build` reads from other files than the weights; by default there are none.

        A model file carries them, so that its network can be built without these files.

        Raises:
            ConfigError: A key names something that the field library does not have.
            WeightsError: A file is missing.
        """
        return {}

    @abstractmethod
    def build(
        self, vocabulary: Vocabulary, *, architecture: Architecture | None = None
    ) -> SegmentationNetwork:
        """Builds the network on the CPU.

        Args:
            vocabulary: The classes, C of them.
            architecture: For a network whose tensors are loaded afterwards, such as that of a
                model file: the result of `architecture`. No file is read, and weights are random.
                None: the encoder gets pretrained weights if the config asks for them.

        Raises:
            ConfigError: A key names something that the field library does not have.
            WeightsError: The weights are missing, cannot be downloaded, or belong to another model.
        """


ModelChoice = Annotated[
    Choice[ModelBuilder], *chosen_from("stages.models.segmenters.builders", ModelBuilder)
]
"""A config's key for a network: its name, or a mapping of `name` and its keys."""
