"""Where the files of a training are."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class TrainingFiles:
    """The files of one variant and seed.

    Attributes:
        folder: All are in it, but for
        events: the folder that TensorBoard looks into.
    """

    folder: Path
    events: Path

    @property
    def weights(self) -> Path:
        """The averaged weights after the last step."""
        return self.folder / "model.safetensors"

    @property
    def best(self) -> Path:
        """The averaged weights that were best on val, if any were scored there."""
        return self.folder / "best.safetensors"

    @property
    def state(self) -> Path:
        """What the training goes on from."""
        return self.folder / "last.pt"

    @property
    def log(self) -> Path:
        """What it measured, as JSON lines."""
        return self.folder / "log.jsonl"
