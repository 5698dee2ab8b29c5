"""Wall and CPU time of work."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Cost:
    """Seconds by the clock, and of all threads of this process together."""

    wall: float = 0
    cpu: float = 0

    def __sub__(self, other: Cost) -> Cost:
        return Cost(self.wall - other.wall, self.cpu - other.cpu)

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.wall + other.wall, self.cpu + other.cpu)

    def __mul__(self, factor: float) -> Cost:
        return Cost(factor * self.wall, factor * self.cpu)


def now(device: torch.device) -> Cost:
    """The times of this process so far, after the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return Cost(time.perf_counter(), time.process_time())
