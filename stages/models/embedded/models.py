"""The tiny models for the sandbox's drawn world: name, files, and what users read about them.

No other module knows these. Needs no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from pipeline.config.config_section import Facts
from pipeline.errors import WeightsError
from pipeline.files.checksum import checksum

SandboxName: TypeAlias = Literal["sandbox"]
"""Type of a config key that may choose one of these models."""

SANDBOX: SandboxName = "sandbox"
"""Name of the models in configs, and of the only vocabulary that they know."""

_HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class EmbeddedModel:
    """A model in a folder of its own: a file of weights and a config.

    Attributes:
        kind: CLIP or SAM.
        folder: Holds the files.
        weights_name: Name of the weights file. Facts of labels contain it.
        config_name: Name of the config file. Facts of labels contain it.
    """

    kind: Literal["CLIP", "SAM"]
    folder: Path
    weights_name: str
    config_name: str

    @property
    def weights(self) -> Path:
        """The file of weights, which may be missing."""
        return self.folder / self.weights_name

    @property
    def config(self) -> Path:
        """The config file, which may be missing."""
        return self.folder / self.config_name

    @property
    def limits(self) -> str:
        """The warning for users who apply the model to anything but the sandbox."""
        return (
            f"the sandbox's {self.kind} was trained on drawn scenes and knows nothing of real "
            "photos"
        )

    def check(self) -> None:
        """Checks that the files exist.

        Raises:
            WeightsError: One is missing.
        """
        for file in (self.weights, self.config):
            if not file.is_file():
                raise self.error(file, f"this file of the sandbox's {self.kind} is missing")

    def facts(self) -> Facts:
        """Names and checksums of the files.

        Raises:
            WeightsError: One is missing.
        """
        self.check()
        return {"weights": checksum(self.weights), "weights.config": checksum(self.config)}

    def error(self, file: Path, what: str) -> WeightsError:
        """The error for a missing or damaged file.

        Args:
            file: One of the model's.
            what: What is wrong with it.
        """
        maker = f"python -m tools.sandbox.train_{self.kind.lower()}"
        fix = f"reinstall Maskmill; in a clone, restore the file with git, or run `{maker}`"
        return WeightsError(what, where=str(file), fix=fix)


CLIP = EmbeddedModel("CLIP", _HERE / "clip", "open_clip_model.safetensors", "open_clip_config.json")
SAM = EmbeddedModel("SAM", _HERE / "sam", "sam_model.safetensors", "sam_config.json")


def knows(vocabulary: str) -> bool:
    """Whether a vocabulary of this name is the sandbox's own."""
    return vocabulary == SANDBOX
