"""Refuses weights and scores that are NaN or infinite, which would otherwise become a class.

Whatever reads weights passes them through `finite_weights`, and whatever turns scores of a network
into classes passes them through `finite_scores`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from pipeline.errors import DataError, WeightsError

T = TypeVar("T")
R = TypeVar("R")
M = TypeVar("M", bound=Mapping[str, Tensor])

_FIX = "use `precision: float32` or bfloat16 where the config has that key, or other weights"


class NotFiniteError(DataError):
    """A network gave scores that are NaN or infinite."""


def finite_weights(tensors: M, where: str) -> M:
    """The same tensors, if all their values are finite.

    Args:
        tensors: Weights by name.
        where: The file or key that they come from, for the error.

    Raises:
        WeightsError: Values of a tensor are not finite; names the tensor.
    """
    if (found := not_finite(tensors)) is not None:
        what = f"{found} has values that are NaN or infinite"
        raise WeightsError(what, where=where, fix="use another copy of the file, or other weights")
    return tensors


def not_finite(state: object) -> str | None:
    """The name of the first tensor with values that are not finite, or None.

    Args:
        state: A tensor, or mappings and sequences of tensors and plain values, nested.
    """
    named = _tensors(state, "")
    return next((name for name, tensor in named if not is_finite(tensor)), None)


def is_finite(tensor: Tensor) -> bool:
    """Whether all values of a tensor are finite."""
    return bool(tensor.isfinite().all())


def finite_scores(scores: Tensor) -> Tensor:
    """The same scores, logits or probabilities, if all are finite.

    Raises:
        NotFiniteError: They are not.
    """
    if is_finite(scores):
        return scores
    count = int((~scores.isfinite()).sum())
    what = f"{count} of {scores.numel()} scores of the network are NaN or infinite"
    raise NotFiniteError(what, where="scores", fix=_FIX)


def naming_images(run: Callable[[Sequence[T]], R], batch: Sequence[T], names: Sequence[str]) -> R:
    """Runs a batch of images; the error for scores that are not finite names the image.

    Args:
        run: Gives an image the same result in any batch.
        batch: The images.
        names: Their names, for the error.

    Raises:
        NotFiniteError: The scores of an image are not finite.
    """
    try:
        return run(batch)
    except NotFiniteError:
        for item, name in zip(batch, names, strict=True):
            try:
                run([item])
            except NotFiniteError as error:
                raise NotFiniteError(error.what, where=f"image {name}", fix=error.fix) from error
        raise


def _tensors(state: object, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(state, torch.Tensor):
        yield name, state
    elif isinstance(state, Mapping):
        for key, value in state.items():
            yield from _tensors(value, f"{name}.{key}" if name else str(key))
    elif isinstance(state, list | tuple):
        for index, value in enumerate(state):
            yield from _tensors(value, f"{name}.{index}" if name else str(index))
