"""Where networks run."""

import resource
import sys

import torch

from pipeline.errors import ConfigError

_TYPES = ("cpu", "cuda")
"""Where all of it was written to run; `meta`, say, computes nothing."""


def pick_device(name: str) -> torch.device:
    """The device of a config's key `device`; auto is a GPU where there is one.

    Raises:
        ConfigError: There is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.zeros(0, device=name).device
        if device.type in _TYPES:
            return device
        reason = None
    except (RuntimeError, AssertionError) as error:
        reason = error
    fix = "use auto, cpu, or cuda on a machine with a GPU"
    raise ConfigError(f"no device {name!r} here", where="device", fix=fix) from reason


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory in use so far: of tensors on a GPU, on the CPU of this whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes
