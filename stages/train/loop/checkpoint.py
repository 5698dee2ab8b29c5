"""The checkpoint of a training: all state, so that a resumed training gives the same result."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

import torch

from pipeline.config.config_section import Facts
from pipeline.errors import MaskmillError, StorageError
from pipeline.files import storage
from pipeline.files.checksum import archive_is_whole
from stages.models.finite import not_finite
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

    def load(self, parts: Mapping[str, Stateful]) -> int:
        """Restores the state of this training, if there is one.

        Returns:
            Number of steps done; 0 if there is nothing to resume.

        Raises:
            StorageError: The file is damaged, holds values that are not finite, or does not fit
                this version.
        """
        if distributed.rank() == 0:  # others would delete what the leader writes now
            for left in storage.temporaries(self.path.parent):
                storage.remove(left)
        if (state := self._read("cpu")) is None:
            return 0
        saved = state["parts"]
        if missing := [name for name in parts if name not in saved]:
            what = f"another version of Maskmill saved it, without {', '.join(missing)}"
            raise StorageError(what, where=str(self.path), fix=_FIX)
        if (name := not_finite({name: saved[name] for name in parts})) is not None:
            what = f"{name} has values that are NaN or infinite"
            raise StorageError(what, where=str(self.path), fix=_FIX)
        with self._whole():
            for name, part in parts.items():
                part.load_state_dict(saved[name])
        return int(state["step"])

    def step(self) -> int:
        """Number of steps done in the saved checkpoint; 0 if there is none."""
        state = self._read("meta")
        return 0 if state is None else int(state["step"])

    def _read(self, device: str) -> dict[str, Any] | None:
        """The saved state of this training; None if there is none.

        It is read to the CPU, and copied to where the networks and optimizers are.
        """
        if not self.path.exists():
            return None
        content = self._checked()
        with self._whole():
            state: dict[str, Any] = torch.load(content, map_location=device, weights_only=True)
            facts = state["facts"]
        return state if facts == json.dumps(self.facts, sort_keys=True) else None

    def _checked(self) -> BytesIO:
        """The bytes of the file, whose checksums are right; torch does not check them."""
        try:
            content = storage.read_bytes(self.path)
        except storage.NoPlainFileError:
            content = b""
        if not archive_is_whole(content):
            raise StorageError("damaged checkpoint", where=str(self.path), fix=_FIX)
        return BytesIO(content)

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """Reports errors of torch with a file whose checksums are right: it is not damaged."""
        try:
            yield
        except (OSError, MaskmillError, MemoryError, torch.cuda.OutOfMemoryError):
            raise
        except Exception as error:  # torch raises many types
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            what = f"the checkpoint is whole, but cannot be resumed here ({reason})"
            fix = "run it with the versions of Maskmill and torch that saved it, or delete it to "
            fix += "start this training again from step 0"
            raise StorageError(what, where=str(self.path), fix=fix) from error
