"""The processes that train one network together, started by torchrun.

Each process has an equal share of every batch, and whatever is computed over a batch is computed
over all shares. A training therefore gives the same network for any number of processes. With a
single process, all functions here are trivial.

DDP averages gradients over the processes. A mean over pixels is therefore a sum divided by
`denominator(count)`, and the random numbers of an image depend on its row in the whole batch
(`StepRandom`). Every process must make the same calls in the same order.
"""

import gc
import hashlib
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from pipeline.errors import ConfigError, MaskmillError
from stages.models.device import pick_device

T = TypeVar("T")
M = TypeVar("M", bound=nn.Module)

_TIMEOUT = timedelta(days=7)
"""Long, because the leader may label images first while the others wait."""


def rank() -> int:
    """Number of this process, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world() -> int:
    """Number of processes."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def local_rows(count: int, rank: int, world: int) -> list[int]:
    """The rows of a whole batch that a process has.

    Args:
        count: Images in the batch; a multiple of `world`.
        rank: Number of the process.
        world: Number of processes.
    """
    share = count // world
    return list(range(rank * share, (rank + 1) * share))


def all_gather_rows(local: Tensor) -> Tensor:
    """The rows (N, ...) of a whole batch, from the `local_rows` of all processes.

    Args:
        local: (B, ...) rows of this process, not bool; gradients do not flow through.
    """
    if world() == 1:
        return local
    shares = [torch.empty_like(local) for _ in range(world())]
    distributed.all_gather(shares, local.contiguous())
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
    """The divisor that turns a sum over this process's pixels into its share of the global mean.

    The average of the quotients over the processes is the mean over the pixels of all processes.

    Args:
        count: Scalar, pixels of this process.

    Returns:
        Scalar: the pixels of all processes, at least 1, over the number of processes.
    """
    return global_sum(count).clamp(min=1) / world()


def all_gather(value: T) -> list[T]:
    """The picklable values of all processes, by rank."""
    if world() == 1:
        return [value]
    found: list[T] = [value] * world()
    distributed.all_gather_object(found, value)
    return found


def broadcast(value: T) -> T:
    """The leader's picklable value, in every process."""
    if world() == 1:
        return value
    box = [value]
    distributed.broadcast_object_list(box)
    return box[0]


@contextmanager
def process_group(device: str) -> Iterator[torch.device]:
    """Sets up the process group of torchrun through accelerate; yields this process's device.

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
        own = PartialState(cpu=picked.type == "cpu", timeout=_TIMEOUT).device
        # Accelerate numbers CPUs too; torch neither loads onto `cpu:0` nor calls it equal to `cpu`.
        yield picked if picked.type == "cpu" else own
    except RuntimeError as error:
        if _is_connection_error(error):
            what = "another process of this training has ended"
            fix = "see its error above; run again to resume from the last checkpoint"
            raise MaskmillError(what, where="torchrun", fix=fix) from error
        raise
    finally:
        gc.collect()  # DDP modules in reference cycles must end before their group
        PartialState().destroy_process_group()
        AcceleratorState._reset_state(reset_partial_state=True)


def _is_connection_error(error: RuntimeError) -> bool:
    return isinstance(error, distributed.DistError) or "gloo" in str(error)


def sync_batchnorm(network: M) -> M:
    """The network with BatchNorm layers whose statistics span all processes.

    Torch has such layers only for GPUs. On CPUs each process normalizes its own share, so the
    result of a network with BatchNorm depends on the number of processes.
    """
    from timm.layers.norm_act import convert_sync_batchnorm

    if world() == 1 or next(network.parameters()).device.type != "cuda":
        return network
    synced: M = convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    return synced


def average_statistics(network: nn.Module) -> None:
    """Averages the running statistics of BatchNorm over the processes, in place.

    On CPUs each process normalizes its own share. Without this, each would have statistics of its
    own, and a resumed training, which has those of the leader, would not go on as it was.
    """
    if world() == 1:
        return
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    moving = [
        buffer
        for norm in norms
        for buffer in (norm.running_mean, norm.running_var)
        if buffer is not None
    ]
    if moving:
        means = global_mean(torch.cat(moving))
        shares = torch.split(means, [len(own) for own in moving])
        for buffer, mean in zip(moving, shares, strict=True):
            buffer.copy_(mean)


def agree(networks: Mapping[str, nn.Module]) -> bool:
    """Whether the networks have the same parameters and buffers in all processes, bit by bit."""
    if world() == 1:
        return True
    found = hashlib.sha256()
    for network in networks.values():
        for tensor in network.state_dict().values():
            found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return len({*all_gather(found.hexdigest())}) == 1


def ddp(module: M) -> M | DistributedDataParallel:
    """The module in DDP, which averages gradients over the processes, if there are several.

    The module's forward must compute the loss: gradients have to flow through DDP's forward.
    """
    if world() == 1:
        return module
    from accelerate import Accelerator, DistributedDataParallelKwargs

    # A ViT has parameters that no loss depends on, such as the mask token of DINOv2.
    handler = DistributedDataParallelKwargs(broadcast_buffers=False, find_unused_parameters=True)
    accelerator = Accelerator(mixed_precision="no", kwargs_handlers=[handler])
    with warnings.catch_warnings():
        # Torch 2.15 renames `broadcast_buffers`; accelerate still passes the old name.
        warnings.simplefilter("ignore", FutureWarning)
        wrapped: DistributedDataParallel = accelerator.prepare_model(module)
    return wrapped


def no_sync(module: nn.Module) -> AbstractContextManager[None]:
    """DDP's `no_sync`: gradients accumulate locally and are averaged by the next backward pass."""
    if isinstance(module, DistributedDataParallel):
        context: AbstractContextManager[None] = module.no_sync()
        return context
    return nullcontext()
