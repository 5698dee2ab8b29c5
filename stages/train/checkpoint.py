"""Training state on disk: enough to go on after a kill as if nothing had happened."""

import json
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from pipeline import storage
from pipeline.errors import StorageError
from pipeline.section import Facts
from stages.segmenters.weights import replace


@dataclass(frozen=True)
class Checkpoint:
    """The resumable state of one training, in one file that is replaced as a whole.

    Random numbers are not part of it: they are a function of seed and step.

    Attributes:
        path: The file.
        facts: What the training depends on; a file of another training is not resumed.
    """

    path: Path
    facts: Facts

    def save(self, step: int, network: nn.Module, teacher: nn.Module, optimizer: Optimizer) -> None:
        """Saves the state after `step` steps.

        Raises:
            StorageError: There is no room; the state saved before stays.
        """
        state = {
            "facts": json.dumps(self.facts, sort_keys=True),
            "step": step,
            "network": network.state_dict(),
            "teacher": teacher.state_dict(),
            "optimizer": optimizer.state_dict(),
        }
        replace(self.path, lambda temporary: torch.save(state, temporary))

    def load(
        self, network: nn.Module, teacher: nn.Module, optimizer: Optimizer, device: torch.device
    ) -> int:
        """Restores the state, if there is one of this very training.

        Returns:
            Steps that are done; 0 where there is nothing to resume.

        Raises:
            StorageError: The file is damaged.
        """
        for left in storage.temporaries(self.path.parent):
            left.unlink(missing_ok=True)
        if not self.path.exists():
            return 0
        content = storage.read_bytes(self.path)
        try:
            state: dict[str, Any] = torch.load(
                BytesIO(content), map_location=device, weights_only=True
            )
            facts = state["facts"]
        except OSError:
            raise  # what the operating system refuses is no damage
        except Exception as error:  # torch reads damage as a pickle: that can fail in any way
            fix = "delete it to start this training anew"
            raise StorageError("damaged checkpoint", where=str(self.path), fix=fix) from error
        if facts != json.dumps(self.facts, sort_keys=True):
            return 0
        network.load_state_dict(state["network"])
        teacher.load_state_dict(state["teacher"])
        optimizer.load_state_dict(state["optimizer"])
        return int(state["step"])
