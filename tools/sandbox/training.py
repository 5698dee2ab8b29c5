"""Parts that both trainings use: learning rate, log, checkpoint, half-precision weights."""

import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as serialize
from torch import Tensor, nn

_WARM_UP = 100


def learning_rate(base: float, step: int, steps: int) -> float:
    """The learning rate of a step: linear warm-up over 100 steps, then half a cosine."""
    cosine = 0.5 + 0.5 * math.cos(math.pi * step / steps)
    return base * min(1, (step + 1) / _WARM_UP) * cosine


def log_to(path: Path) -> Callable[..., None]:
    """Returns a function that appends its arguments and the elapsed seconds as a JSON line."""
    began = time.monotonic()

    def log(**values: float | str) -> None:
        with path.open("a") as file:
            line = values | {"seconds": round(time.monotonic() - began, 1)}
            file.write(json.dumps(line) + "\n")

    return log


def save_checkpoint(path: Path, model: nn.Module, step: int, optimizer: dict[str, Any]) -> None:
    """Writes a checkpoint to resume from; replaces the file atomically."""
    state = {"model": model.state_dict(), "step": step, "optimizer": optimizer}
    torch.save(state, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)


def save_half(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes weights in half precision; integers keep their type."""
    weights = {
        name: value.detach().contiguous().to(torch.float16 if value.is_floating_point() else None)
        for name, value in tensors.items()
    }
    path.write_bytes(serialize(weights))
