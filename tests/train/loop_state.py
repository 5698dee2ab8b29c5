"""Everything that a training loop holds, to compare two loops."""

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from stages.train.loop.loop import TrainingLoop

OURS = ("pipeline.", "stages.", "tests.")


def state_of(loop: TrainingLoop) -> dict[str, Any]:
    """Tensors and plain values that a loop holds, however deep, by the way to them.

    Where files lie is left out, and so is what can be called. The keys do not name parts, so that a
    part with a state needs no line here, only one in the checkpoint.
    """
    return dict(_values(loop, "loop", set()))


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The ways to values that two loops do not share."""
    shared = one.keys() & other.keys()
    return sorted(
        [*(one.keys() ^ other.keys()), *(k for k in shared if not same(one[k], other[k]))]
    )


def same(one: object, other: object) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    return type(one) is type(other) and repr(one) == repr(other)


def _values(thing: object, way: str, seen: set[int]) -> Iterator[tuple[str, object]]:
    if thing is None or isinstance(thing, str | int | float | Tensor):
        yield way, thing
        return
    if id(thing) in seen:
        return
    seen.add(id(thing))
    for name, inner in _parts(thing):
        yield from _values(inner, f"{way}.{name}", seen)


def _parts(thing: object) -> Iterator[tuple[object, object]]:
    if isinstance(thing, Mapping):
        yield from thing.items()
    elif isinstance(thing, list | tuple | deque):
        yield "length", len(thing)
        yield from enumerate(thing)
    elif isinstance(thing, nn.Module):
        yield from {**thing.state_dict(), **_own(thing)}.items()
    elif isinstance(thing, Optimizer | torch.amp.GradScaler):
        yield from thing.state_dict().items()
    elif type(thing).__module__.startswith(OURS):
        yield from _own(thing).items()


def _own(thing: object) -> dict[str, object]:
    found = dict(vars(thing))
    if is_dataclass(thing):
        found |= {field.name: getattr(thing, field.name) for field in fields(thing)}
    return {k: v for k, v in found.items() if k not in ("_parameters", "_buffers")}
