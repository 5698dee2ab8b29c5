"""Training state on disk: enough to go on after a kill as if nothing had happened."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import nn
from torch.optim import Optimizer

from pipeline import storage
from pipeline.errors import StorageError, WeightsError
from pipeline.section import Facts


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
        _replace(self.path, lambda temporary: torch.save(state, temporary))

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


def save_weights(path: Path, network: nn.Module, about: dict[str, str]) -> None:
    """Writes a network's weights as safetensors, with text about them in the header.

    Raises:
        StorageError: There is no room.
    """
    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    _replace(path, lambda temporary: save_file(tensors, temporary, metadata=about))


def load_weights(path: Path, network: nn.Module) -> None:
    """Fills a network from a safetensors file.

    Raises:
        WeightsError: The file is missing, or holds another network.
    """
    try:
        network.load_state_dict(load(storage.read_bytes(path)))
    except (OSError, storage.NoPlainFileError, RuntimeError, SafetensorError) as error:
        what = f"cannot load the weights: {_one_line(error)}"
        fix = "delete it if it is there, then run `maskmill run train`"
        raise WeightsError(what, where=str(path), fix=fix) from error


def _replace(path: Path, write: Callable[[Path], None]) -> None:
    try:
        with storage.replacing(path) as temporary:
            write(temporary)
    except (
        RuntimeError,
        SafetensorError,
    ) as error:  # how torch and safetensors tell of a full disk
        what = f"cannot be written: {_one_line(error)}"
        fix = "free some space and run again; what is done stays done"
        raise StorageError(what, where=str(path), fix=fix) from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
