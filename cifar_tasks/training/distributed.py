"""Several processes that train one model together: torch's DistributedDataParallel, started as torchrun would.

Every process plans the same batches and takes its share of each; only rank 0 writes.
"""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cifar_tasks.errors import ConfigError
from cifar_tasks.training.batch_norm import synchronise_batch_norm


def rank() -> int:
    """Number of this process among those that train together; 0 when it trains alone."""
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def share() -> slice:
    """The part of a batch or split that this process works on: every `size`-th item from its rank on."""
    return slice(rank(), None, size())


def total(values: Tensor) -> Tensor:
    """The sum over all processes, written into `values`; the values themselves when there is one process."""
    if size() > 1:
        dist.all_reduce(values)
    return values


def broadcast(value: Any) -> Any:
    """Rank 0's value, in all processes; it must be picklable."""
    values = [value]
    if size() > 1:
        dist.broadcast_object_list(values)
    return values[0]


def check_batch(batch_size: int, processes: int) -> None:
    """Raise `ConfigError` unless each of the processes gets as many images of a batch as the others."""
    if batch_size % processes:
        raise ConfigError(
            f"a batch of {batch_size} images cannot be shared equally by {processes} processes: choose a batch_size "
            f"that is a multiple of {processes}, or another CIFAR_TRAINING_PROCESSES."
        )


def wrap(model: nn.Module, device: torch.device) -> nn.Module:
    """`model` with gradients averaged over all processes in every backward pass.

    Weights are those of rank 0 from here on.
    """
    if size() == 1:
        return model
    return DistributedDataParallel(
        model,
        device_ids=[device] if device.type == "cuda" else None,
        forward_sync_buffers=False,  # equal anyway: their batch norm is `synchronised`
    )


def synchronised(model: nn.Module) -> nn.Module:
    """A copy of `model` whose batch norms see the batch of all processes as one, with the same names in its state.

    `model` itself when it trains alone.
    """
    if size() == 1:
        return model
    copy = deepcopy(model)
    if next(copy.parameters()).is_cuda:
        from timm.layers.norm_act import convert_sync_batchnorm  # knows timm's own batch norm beside torch's

        converted: nn.Module = convert_sync_batchnorm(copy)  # type: ignore[no-untyped-call]
        return converted
    synchronise_batch_norm(copy)  # torch's own runs on GPUs only
    return copy


def run(function: Callable[..., Any], processes: int, **arguments: Any) -> Any:
    """Call `function(**arguments)` in each of N new processes, or here if N is 1; returns the result of rank 0.

    Function, arguments and results must be picklable. The first `CifarError` of a process is raised here again;
    `WorkerLost` if one ends otherwise without a result; `Stopped` if this process receives SIGTERM meanwhile;
    `ConfigError` if there are GPUs, but not one for each.
    """
    if processes == 1:
        return function(**arguments)
    from cifar_tasks.training.launch import launch

    return launch(function, processes, arguments)
