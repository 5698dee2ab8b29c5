"""The processes that train one network together, started by torchrun; alone, all here is trivial.

Each has an equal share of every batch, and what is computed over a batch is computed over all
shares: a training gives the same network whatever the number of its processes.

Gradients are averaged over the processes, so what they average must be what one process alone would
minimize. A sum over pixels is therefore divided by `denominator(count)`, and random numbers of
images are those of their positions in the whole batch (`draws.py`). Every process must come to each
of these calls, in the same order.
"""

import os
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from pipeline.errors import ConfigError, MaskmillError
from stages.models.device import pick_device

T = TypeVar("T")
M = TypeVar("M", bound=nn.Module)

_PATIENCE = timedelta(days=7)
"""The leader may have images to label before a training, while the others wait."""


def rank() -> int:
    """Number of this process, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world() -> int:
    """Number of processes."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def own_rows(count: int, rank: int, world: int) -> list[int]:
    """Which images of a whole batch a process has.

    Args:
        count: Images in the batch; a multiple of `world`.
        rank: Number of the process.
        world: Number of processes.
    """
    share = count // world
    return list(range(rank * share, (rank + 1) * share))


def whole_batch(own: Tensor) -> Tensor:
    """The images (N, ...) of a whole batch, of which each process has its `own_rows`.

    Args:
        own: (B, ...) this process's, of numbers, not of bool; without gradient.
    """
    if world() == 1:
        return own
    shares = [torch.empty_like(own) for _ in range(world())]
    distributed.all_gather(shares, own.contiguous())
    return torch.cat(shares)


def global_sum(value: Tensor) -> Tensor:
    """The sum of a tensor over all processes, of the same shape and type; without gradient."""
    if world() == 1:
        return value.detach()
    total = value.detach().clone()
    distributed.all_reduce(total)
    return total


def global_mean(value: Tensor) -> Tensor:
    """The mean of a float tensor over all processes; without gradient."""
    return global_sum(value) / world()


def denominator(count: Tensor) -> Tensor:
    """What a sum over this process's pixels is divided by for a mean over those of all.

    The mean over the processes of such quotients is the quotient of the sums.

    Args:
        count: Scalar, pixels of this process.

    Returns:
        Scalar: the pixels of all processes, at least 1, over the number of processes.
    """
    return global_sum(count).clamp(min=1) / world()


def gathered(value: T) -> list[T]:
    """The plain values that each process has, by rank."""
    if world() == 1:
        return [value]
    found: list[T] = [value] * world()
    distributed.all_gather_object(found, value)
    return found


def told(value: T) -> T:
    """The plain value that the leader has; what the others have does not matter."""
    if world() == 1:
        return value
    box = [value]
    distributed.broadcast_object_list(box)
    return box[0]


@contextmanager
def joined(device: str) -> Iterator[torch.device]:
    """Joins the processes of torchrun, through accelerate; yields the device of this one.

    Args:
        device: As in a config: cpu, cuda or auto.

    Raises:
        ConfigError: There is no GPU for this process.
        MaskmillError: Another process has ended.
    """
    from accelerate import PartialState
    from accelerate.state import AcceleratorState

    picked = pick_device(device)
    if picked.type == "cuda":
        count, needed = torch.cuda.device_count(), int(os.environ["LOCAL_WORLD_SIZE"])
        if count < needed:
            what = f"{needed} processes on a machine with {count} GPUs"
            fix = f"use torchrun --nproc-per-node {count}"
            raise ConfigError(what, where="torchrun", fix=fix)
    try:
        yield PartialState(cpu=picked.type == "cpu", timeout=_PATIENCE).device
    except RuntimeError as error:
        if _tells_of_the_network(error):
            what = "another process of this training has ended"
            fix = "see what it said; run again to go on from the last checkpoint"
            raise MaskmillError(what, where="torchrun", fix=fix) from error
        raise
    finally:
        PartialState().destroy_process_group()
        AcceleratorState._reset_state(reset_partial_state=True)


def _tells_of_the_network(error: RuntimeError) -> bool:
    return isinstance(error, distributed.DistError) or "gloo" in str(error)


def synchronized(network: M) -> M:
    """The network with BatchNorm that takes its statistics over all processes.

    There is such a one for GPUs alone. On CPUs each process normalizes its own share, so the result
    of a network with BatchNorm depends on their number there.
    """
    from timm.layers.norm_act import convert_sync_batchnorm

    if world() == 1 or next(network.parameters()).device.type != "cuda":
        return network
    synced: M = convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    return synced


def parallel(module: M) -> M | DistributedDataParallel:
    """A module whose gradients are averaged over all processes, if there are several.

    Its forward computes the loss: DDP wants all that gradients go through inside.
    """
    if world() == 1:
        return module
    from accelerate import Accelerator, DistributedDataParallelKwargs

    # A ViT has parameters that no loss reaches, such as the mask token of DINOv2.
    handler = DistributedDataParallelKwargs(broadcast_buffers=False, find_unused_parameters=True)
    accelerator = Accelerator(mixed_precision="no", kwargs_handlers=[handler])
    with warnings.catch_warnings():
        # Torch 2.15 renames `broadcast_buffers`, accelerate does not know the new name yet.
        warnings.simplefilter("ignore", FutureWarning)
        wrapped: DistributedDataParallel = accelerator.prepare_model(module)
    return wrapped


def apart(module: nn.Module) -> AbstractContextManager[None]:
    """While this is entered, gradients add up in each process and are averaged with the next."""
    if isinstance(module, DistributedDataParallel):
        held: AbstractContextManager[None] = module.no_sync()
        return held
    return nullcontext()
