"""Errors of torch that a user can fix by a config key."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.errors import ConfigError


@contextmanager
def compile_errors(where: str) -> Iterator[None]:
    """Turns errors of torch.compile, which compiles in the first step, into a `ConfigError`."""
    from torch._dynamo.exc import TorchDynamoException  # takes seconds to import
    from torch._inductor.runtime import runtime_utils

    try:
        yield
    except TorchDynamoException as error:
        what = f"torch cannot compile the network: {' '.join(str(error).split())[:200]}"
        fix = "set `compile: false`"
        cause = getattr(error, "inner_exception", None)
        cache = runtime_utils.cache_dir()  # type: ignore[attr-defined] # as in torch 2.4
        if isinstance(cause, ImportError) and cache in str(cause):
            fix = f"delete {cache}, where a kill may have left half a file, or {fix}"
        raise ConfigError(what, where=where, fix=fix) from error


@contextmanager
def batch_norm_errors(where: str) -> Iterator[None]:
    """Turns the error of BatchNorm on a single value into a `ConfigError`."""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        what = "BatchNorm cannot train on a single crop"
        fix = "set `batch_size` to at least 2 crops for each micro-batch and process"
        raise ConfigError(what, where=where, fix=fix) from error
