"""Text embeddings on disk, a file a text: a changed class list embeds only what is new."""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.manifest import digest
from pipeline.section import Facts

_VERSION = 1
"""Raised when the same text model would be asked otherwise, or files are laid out otherwise."""


class TextCache:
    """Embeddings of one text model. Several processes may use a folder at a time.

    It may be deleted at any moment, for whatever is missing or damaged is embedded again.

    Args:
        folder: Holds a folder for each text model.
        model: What tells this model from others: its weights, and its architecture.
    """

    def __init__(self, folder: Path, model: Facts) -> None:
        self._folder = folder / digest({"version": _VERSION, **model})

    def read(self, text: str, templates: Sequence[str]) -> Tensor | None:
        """(P, D) float32, what was written for a text in P templates; None where nothing was."""
        try:
            with self._path(text, templates).open("rb") as file:
                embeddings = np.load(file, allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        if embeddings.dtype != np.float32 or len(embeddings.shape) != 2:
            return None
        return torch.from_numpy(embeddings) if len(embeddings) == len(templates) else None

    def write(self, text: str, templates: Sequence[str], embeddings: Tensor) -> None:
        """Keeps the (P, D) float32 embeddings of a text, on the CPU, renaming the file last."""
        path = self._path(text, templates)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            with temporary.open("wb") as file:
                np.save(file, embeddings.numpy(), allow_pickle=False)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    def _path(self, text: str, templates: Sequence[str]) -> Path:
        return self._folder / f"{digest([text, *templates])}.npy"
