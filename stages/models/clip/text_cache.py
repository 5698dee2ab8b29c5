"""Text embeddings on disk, a file a text: a changed class list embeds only what is new."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from pipeline.config.config_section import Facts
from pipeline.files import storage
from pipeline.records.manifest import digest

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
            content = storage.read_bytes(self._path(text, templates))
            with np.load(BytesIO(content), allow_pickle=False) as file:  # checks its checksums
                embeddings = file["embeddings"]
        except (OSError, ValueError, EOFError, KeyError, BadZipFile):
            return None
        is_whole = embeddings.ndim == 2 and len(embeddings) == len(templates)
        is_whole &= embeddings.dtype == np.float32
        return torch.from_numpy(embeddings) if is_whole else None

    def write(self, text: str, templates: Sequence[str], embeddings: Tensor) -> None:
        """Keeps the (P, D) float32 embeddings of a text, on the CPU.

        Raises:
            OSError: There is no room, say.
            StorageError: The object store does not answer.
        """
        content = BytesIO()
        np.savez(content, embeddings=embeddings.numpy())
        storage.write_bytes(self._path(text, templates), content.getvalue(), durable=False)

    def _path(self, text: str, templates: Sequence[str]) -> Path:
        return self._folder / f"{digest([text, *templates])}.npz"
