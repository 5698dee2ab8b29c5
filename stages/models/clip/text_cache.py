"""Text embeddings on disk, a file for each text: a changed class list embeds only new texts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from pipeline.config.config_section import Facts
from pipeline.files import storage
from pipeline.records.part_file import digest

_VERSION = 2
"""Increased when embeddings are computed differently, or the format of files changes."""


class TextCache:
    """Embeddings of one text model. Several processes may use the folder at the same time.

    The folder may be deleted at any time: missing or damaged files are computed again.

    Args:
        folder: Holds a folder for each text model.
        model: Facts that identify the model: its weights and its architecture.
    """

    def __init__(self, folder: Path, model: Facts) -> None:
        self._folder = folder / digest({"version": _VERSION, **model})

    def read(self, text: str, templates: Sequence[str]) -> Tensor | None:
        """The embeddings of a text in P templates, (P, D) float32; None if they are not cached."""
        try:
            content = storage.read_bytes(self._path(text, templates))
            with np.load(BytesIO(content), allow_pickle=False) as file:  # verifies checksums
                embeddings, key = file["embeddings"], str(file["key"])
        except (OSError, ValueError, EOFError, KeyError, BadZipFile):
            return None
        # A file that was moved to the place of another holds other texts.
        is_whole = key == self._key(text, templates)
        is_whole &= embeddings.ndim == 2 and len(embeddings) == len(templates)
        is_whole &= embeddings.dtype == np.float32 and bool(np.isfinite(embeddings).all())
        return torch.from_numpy(embeddings) if is_whole else None

    def write(self, text: str, templates: Sequence[str], embeddings: Tensor) -> None:
        """Writes the embeddings of a text, (P, D) float32 on the CPU.

        Raises:
            OSError: The file cannot be written, for example because the disk is full.
            StorageError: The object store does not answer.
        """
        content = BytesIO()
        np.savez(content, embeddings=embeddings.numpy(), key=np.array(self._key(text, templates)))
        storage.write_bytes(self._path(text, templates), content.getvalue(), durable=False)

    def _path(self, text: str, templates: Sequence[str]) -> Path:
        return self._folder / f"{digest([text, *templates])}.npz"

    def _key(self, text: str, templates: Sequence[str]) -> str:
        """What the embeddings of a file are of."""
        return json.dumps([self._folder.name, text, *templates])
