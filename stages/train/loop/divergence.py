"""Tells when a training has gone wrong for good, before it does harm to its checkpoint."""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from pipeline.errors import MaskmillError
from stages.train import distributed
from stages.train.data.batch import ImageIds
from stages.train.loop.checkpoint import Checkpoint

EXPLOSION = 1e4
"""A loss of so many times the running median is no hard batch any more."""
LEAST_MEDIAN = 0.01
"""So that a training that knows its images by heart may meet an odd crop of them."""
_WINDOW, _ENOUGH = 101, 20
"""Losses that the running median is of, and how many it takes."""


class DivergedError(MaskmillError):
    """A training has diverged; every process of it raises this at the same step."""


class LossWatch:
    """Knows the last losses of a training."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=_WINDOW)

    def fault(self, loss: float) -> str | None:
        """What is wrong with the next loss: "the loss became nan"; None where nothing is."""
        if not math.isfinite(loss):
            return f"the loss became {loss}"
        if len(self._recent) >= _ENOUGH:
            usual = median(self._recent)
            if loss > EXPLOSION * max(usual, LEAST_MEDIAN):
                return f"the loss became {loss:.4g}, after a median of {usual:.4g}"
        self._recent.append(loss)
        return None

    def state_dict(self) -> dict[str, Any]:
        """The last losses."""
        return {"recent": list(self._recent)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from those of `state_dict`."""
        self._recent.extend(state["recent"])


def diverged(
    what: str, step: int, seen: Sequence[ImageIds], checkpoint: Checkpoint
) -> DivergedError:
    """The error that ends a training; every process must come here.

    Args:
        what: What is wrong: "the loss became nan".
        step: The step that went wrong, from 0.
        seen: Images of the micro-batches that it was computed on, in this process.
        checkpoint: Where the training can be gone on from.
    """
    shares = distributed.gathered([dict(ids) for ids in seen])
    every = [ids for share in shares for ids in share]
    roles = dict.fromkeys(role for ids in every for role in ids)
    listed = {role: [name for ids in every for name in ids.get(role, ())] for role in roles}
    told = ", ".join(f"{role} {' '.join(names)}" for role, names in listed.items())
    images = f" (images: {told})" if told else ""
    step_kept = checkpoint.step()
    kept = f"the checkpoint after step {step_kept} is kept" if step_kept else "no checkpoint yet"
    fix = f"lower train.learning_rate or look at the images; {kept}"
    return DivergedError(f"{what} in step {step}{images}", where=str(checkpoint.path), fix=fix)
