"""Where networks run."""

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
