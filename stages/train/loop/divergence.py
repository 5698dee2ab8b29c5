"""Detects that a training has diverged, before its checkpoint is overwritten."""

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
"""A loss of so many times the running median cannot come from a hard batch."""
LEAST_MEDIAN = 0.01
"""Smaller medians count as this, so that an overfitted training may meet an unusual crop."""
_WINDOW, _ENOUGH = 101, 20
"""Losses in the running median, and the least number of them for a decision."""


class DivergedError(MaskmillError):
    """A training has diverged; every process of it raises this at the same step."""


class LossWatch:
    """Watches the last losses of a training."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=_WINDOW)

    def fault(self, loss: float) -> str | None:
        """Checks the next loss; returns the fault, "the loss became nan", or None."""
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
        """Continues from the losses of `state_dict`."""
        self._recent.extend(state["recent"])


def diverged(
    what: str, step: int, seen: Sequence[ImageIds], checkpoint: Checkpoint
) -> DivergedError:
    """Builds the error that ends a training; every process must call this.

    Args:
        what: What is wrong: "the loss became nan".
        step: The step that went wrong, from 0.
        seen: Images of its micro-batches, in this process.
        checkpoint: The checkpoint that the training can be resumed from.
    """
    shares = distributed.all_gather([dict(ids) for ids in seen])
    every = [ids for share in shares for ids in share]
    roles = dict.fromkeys(role for ids in every for role in ids)
    listed = {role: [name for ids in every for name in ids.get(role, ())] for role in roles}
    names = ", ".join(f"{role} {' '.join(own)}" for role, own in listed.items())
    images = f" (images: {names})" if names else ""
    step_kept = checkpoint.step()
    kept = f"the checkpoint after step {step_kept} is kept" if step_kept else "no checkpoint yet"
    fix = f"lower train.learning_rate or look at the images; {kept}"
    return DivergedError(f"{what} in step {step}{images}", where=str(checkpoint.path), fix=fix)
