"""Training state on disk: enough to go on after a kill as if nothing had happened."""

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

_FIX = "delete it to start this training anew"


class Stateful(Protocol):
    """What a training goes on from a part of: a network, an optimizer, ..."""

    def state_dict(self) -> dict[str, Any]:
        """Plain values and tensors."""

    def load_state_dict(self, state: dict[str, Any], /) -> object:
        """Takes back what `state_dict` gave."""


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

    def save(self, step: int, parts: Mapping[str, Stateful]) -> None:
        """Saves the state after `step` steps.

        Raises:
            StorageError: There is no room; the state saved before stays.
        """
        state = {
            "facts": json.dumps(self.facts, sort_keys=True),
            "step": step,
            "parts": {name: part.state_dict() for name, part in parts.items()},
        }
        replace(self.path, lambda temporary: torch.save(state, temporary))

    def load(self, parts: Mapping[str, Stateful], device: torch.device) -> int:
        """Restores the state, if there is one of this very training.

        Returns:
            Steps that are done; 0 where there is nothing to resume.

        Raises:
            StorageError: The file is damaged, or was saved by another version.
        """
        for left in storage.temporaries(self.path.parent):
            left.unlink(missing_ok=True)
        if (state := self._read(device)) is None:
            return 0
        saved = state["parts"]
        if missing := [name for name in parts if name not in saved]:
            what = f"saved by another version of Maskmill, without {', '.join(missing)}"
            raise StorageError(what, where=str(self.path), fix=_FIX)
        with self._undamaged():
            for name, part in parts.items():
                part.load_state_dict(saved[name])
        return int(state["step"])

    def step(self) -> int:
        """Steps that are done by the state that is saved; 0 where there is none."""
        state = self._read(torch.device("meta"))
        return 0 if state is None else int(state["step"])

    def _read(self, device: torch.device) -> dict[str, Any] | None:
        """What was saved of this very training."""
        if not self.path.exists():
            return None
        with self._undamaged():
            content = BytesIO(storage.read_bytes(self.path))
            # torch does not look at the checksums that it writes.
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
            raise  # what the operating system refuses, or has no room for, is no damage
        except Exception as error:  # torch reads damage as a pickle: that can fail in any way
            raise StorageError("damaged checkpoint", where=str(self.path), fix=_FIX) from error
