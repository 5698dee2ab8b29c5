"""Reads checkpoints in the forms in which their authors publish them; runs nothing of them.

A file may hold its tensors under a name such as `state_dict`, with names that begin with `module.`
(of DistributedDataParallel), as NumPy arrays, next to numbers and options, in torch's zip or its
older format, or as safetensors. All of these give the same tensors.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from stages.models import plain_pickle
from stages.models.plain_pickle import ForbiddenValueError

_WRAPPERS = ("state_dict", "model", "model_state_dict", "teacher", "ema", "network", "net")
"""Names under which published checkpoints hold the tensors."""
_MAX_WRAPPERS = 3
_OF_PROCESSES = "module."
_OPENAI = frozenset(["input_resolution", "context_length", "vocab_size"])
"""Numbers in the `state_dict` of OpenAI's own loader, next to the tensors."""
_ESCAPE = re.compile("\x1b\\[[0-9;]*m")
_MAX_HEADER_BYTES = 2**27


class NotTensorsError(Exception):
    """A file is no checkpoint of plain tensors; the text says why, on one line."""


class TorchScriptError(NotTensorsError):
    """A file is a TorchScript archive: a program, not only tensors."""


@dataclass(frozen=True)
class CheckpointFile:
    """The tensors of a checkpoint.

    Attributes:
        tensors: By name, without prefixes of wrappers.
        is_as_written: Whether the file is safetensors with exactly these tensors.
        is_of_openai: Whether OpenAI's own loader of CLIP wrote it.
    """

    tensors: dict[str, Tensor]
    is_as_written: bool
    is_of_openai: bool


def read_checkpoint(path: Path) -> CheckpointFile:
    """Reads a checkpoint.

    Raises:
        FileNotFoundError: There is no such file.
        NotTensorsError: It is damaged, no checkpoint, or holds more than tensors and plain values.
    """
    is_safetensors = path.suffix.lower() == ".safetensors"
    content = _read_safetensors(path) if is_safetensors else _read_torch(path)
    values = _unwrapped(content)
    tensors = {name: each for name, each in map(_as_tensor, values.items()) if each is not None}
    names = {*values}
    if all(name.startswith(_OF_PROCESSES) for name in tensors):
        tensors = {name.removeprefix(_OF_PROCESSES): each for name, each in tensors.items()}
        names = {name.removeprefix(_OF_PROCESSES) for name in names}
    is_of_openai = names >= _OPENAI  # which some copies hold as plain numbers
    tensors = {name: each for name, each in tensors.items() if name not in _OPENAI}
    if not tensors:
        raise NotTensorsError("it holds no tensors")
    for name, tensor in tensors.items():
        _check_plain(name, tensor)
    return CheckpointFile(
        tensors, is_safetensors and tensors.keys() == content.keys(), is_of_openai
    )


def _unwrapped(content: Any, depth: int = _MAX_WRAPPERS) -> Mapping[str, Any]:
    """The innermost mapping that holds tensors; the outermost one if none does."""
    if not isinstance(content, Mapping):
        raise NotTensorsError(f"it holds a {type(content).__name__}, not tensors by name")
    inner = [content[name] for name in _WRAPPERS if isinstance(content.get(name), Mapping)]
    for each in inner if depth else []:
        found = _unwrapped(each, depth - 1)
        if any(isinstance(value, Tensor | np.ndarray) for value in found.values()):
            return found
    return {str(name): value for name, value in content.items()}


def _as_tensor(item: tuple[str, Any]) -> tuple[str, Tensor | None]:
    """A name and its tensor; None for a plain value, such as a step or options."""
    name, value = item
    if isinstance(value, Tensor):
        return name, value
    is_array = isinstance(value, np.ndarray) and value.dtype.kind in "fiub"
    try:
        return name, torch.from_numpy(value.copy()) if is_array else None
    except (TypeError, ValueError) as error:
        raise NotTensorsError(f"{name}: {one_line(error)}") from error


def _check_plain(name: str, tensor: Tensor) -> None:
    """Refuses tensors that are no numbers on the CPU, one beside the other."""
    is_dense = tensor.layout is torch.strided and not tensor.is_quantized
    if not is_dense or tensor.is_complex() or tensor.device.type != "cpu":
        form = f"{tensor.dtype} on {tensor.device}, {tensor.layout}".replace("torch.", "")
        raise NotTensorsError(f"{name} is no tensor of plain numbers: {form}")
    if name.endswith((".weight", ".bias")) and not tensor.is_floating_point():
        raise NotTensorsError(f"{name} holds whole numbers, not weights")


def _read_torch(path: Path) -> Any:
    with path.open("rb"):  # raises here where there is no such file
        pass
    names = _names_in_zip(path)
    if any("/code/" in name or name.endswith("/constants.pkl") for name in names):
        raise TorchScriptError("it is a TorchScript archive, a program")
    try:
        return plain_pickle.load(path, is_zip=bool(names))
    except MemoryError:
        raise
    except ForbiddenValueError as error:
        raise NotTensorsError(str(error)) from error
    except Exception as error:  # damaged files raise many kinds of errors
        raise NotTensorsError(one_line(error)) from error


def _names_in_zip(path: Path) -> list[str]:
    """The names in a zip archive; none for a file of torch's older format."""
    try:
        with ZipFile(path) as archive:
            return archive.namelist()
    except (BadZipFile, NotImplementedError, ValueError):
        return []


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    _check_header(path)
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except MemoryError:
        raise
    except Exception as error:
        raise NotTensorsError(one_line(error)) from error
    return tensors


def _check_header(path: Path) -> None:
    """Refuses headers that readers understand in different ways."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(min(length, _MAX_HEADER_BYTES))
    try:
        pairs: list[tuple[str, Any]] = json.loads(header, object_pairs_hook=list)
        names = [name for name, _ in pairs]
    except (ValueError, TypeError, RecursionError) as error:
        raise NotTensorsError("its header is not that of safetensors") from error
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise NotTensorsError(f"its header names {twice} twice")
    if not isinstance(dict(pairs).get("__metadata__", []), list):
        raise NotTensorsError("the `__metadata__` in its header is no mapping")


def one_line(error: Exception) -> str:
    """An error of a library as a few words on one line, without escape codes of terminals."""
    text = _ESCAPE.sub("", f"{type(error).__name__}: {error}")
    return textwrap.shorten("".join(c if c.isprintable() else " " for c in text), 160)
