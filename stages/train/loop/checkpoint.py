"""The checkpoint of a training: all state, so that a resumed training gives the same result."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol
from zipfile import BadZipFile, ZipFile

import torch

from pipeline.config.config_section import Facts
from pipeline.errors import MaskmillError, StorageError
from pipeline.files import storage
from stages.models.segmenters.weights import replace
from stages.train import distributed

_FIX = "delete it to start this training again from step 0"


class Stateful(Protocol):
    """Part of the state of a training: a network, an optimizer, ..."""

    def state_dict(self) -> dict[str, Any]:
        """The state as plain values and tensors."""

    def load_state_dict(self, state: dict[str, Any], /) -> object:
        """Restores a state that `state_dict` returned."""


@dataclass(frozen=True)
class Checkpoint:
    """The state of one training, in one file that is replaced as a whole.

    It holds no random generators: random numbers are a function of seed and step.

    Attributes:
        path: The file.
        facts: The facts of the training; a checkpoint with other facts is not resumed.
    """

    path: Path
    facts: Facts

    def save(self, step: int, parts: Mapping[str, Stateful]) -> None:
        """Saves the state after `step` steps.

        Raises:
            StorageError: The disk is full; the former checkpoint stays.
        """
        state = {
            "facts": json.dumps(self.facts, sort_keys=True),
            "step": step,
            "parts": {name: part.state_dict() for name, part in parts.items()},
        }
        replace(self.path, lambda temporary: torch.save(state, temporary))

    def load(self, parts: Mapping[str, Stateful], device: torch.device) -> int:
        """Restores the state of this training, if there is one.

        Returns:
            Number of steps done; 0 if there is nothing to resume.

        Raises:
            StorageError: The file is damaged, or another version saved it.
        """
        if distributed.rank() == 0:  # others would delete what the leader writes now
            for left in storage.temporaries(self.path.parent):
                left.unlink(missing_ok=True)
        if (state := self._read(device)) is None:
            return 0
        saved = state["parts"]
        if missing := [name for name in parts if name not in saved]:
            what = f"another version of Maskmill saved it, without {', '.join(missing)}"
            raise StorageError(what, where=str(self.path), fix=_FIX)
        with self._undamaged():
            for name, part in parts.items():
                part.load_state_dict(saved[name])
        return int(state["step"])

    def step(self) -> int:
        """Number of steps done in the saved checkpoint; 0 if there is none."""
        state = self._read(torch.device("meta"))
        return 0 if state is None else int(state["step"])

    def _read(self, device: torch.device) -> dict[str, Any] | None:
        """The saved state of this training; None if there is none."""
        if not self.path.exists():
            return None
        with self._undamaged():
            content = BytesIO(storage.read_bytes(self.path))
            # torch does not check the checksums that it writes.
            if (member := ZipFile(content).testzip()) is not None:
                raise BadZipFile(member)
            content.seek(0)
            state: dict[str, Any] = torch.load(content, map_location=device, weights_only=True)
            facts = state["facts"]
        return state if facts == json.dumps(self.facts, sort_keys=True) else None

    @contextmanager
    def _undamaged(self) -> Iterator[None]:
        try:
            yield
        except (OSError, MaskmillError, MemoryError, torch.cuda.OutOfMemoryError):
            raise  # refused by the system, or out of memory: no damage
        except Exception as error:  # torch unpickles damaged bytes, which can fail in any way
            raise StorageError("damaged checkpoint", where=str(self.path), fix=_FIX) from error
