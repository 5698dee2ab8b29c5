"""The device that networks run on, and its memory."""

import resource
import sys

import torch

from pipeline.errors import ConfigError

_TYPES = ("cpu", "cuda", "mps")
"""Supported types of devices; others exist, such as `meta`, which computes nothing."""


def pick_device(name: str) -> torch.device:
    """The device for a config's key `device`; auto is a CUDA GPU if there is one.

    mps, the GPU of an Apple computer, is used only where a config names it: results there are not
    compared with those of other devices.

    Raises:
        ConfigError: This machine has no such device.
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
    fix = "use auto, cpu, or on a machine with such a GPU cuda or mps"
    raise ConfigError(f"this machine has no device {name!r}", where="device", fix=fix) from reason


def peak_memory_bytes(device: torch.device) -> int:
    """Peak memory so far: of tensors on a GPU, or of this process on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes
