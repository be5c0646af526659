"""Batch norm over the batch of all processes, on the CPU, where torch's `SyncBatchNorm` does not run."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

IMAGES_AND_PIXELS = (0, 2, 3)
"""The dimensions of (N, C, H, W) that a channel's statistics are taken over."""


class SynchronisedBatchNorm2d(nn.BatchNorm2d):
    """`BatchNorm2d` whose statistics in training are those of all processes, each with equally many images.

    It also takes the place of timm's `BatchNormAct2d`, which has the activation after it inside.
    """

    def __init__(self, layer: nn.BatchNorm2d) -> None:
        super().__init__(layer.num_features, layer.eps, layer.momentum)
        self.drop: nn.Module = getattr(layer, "drop", nn.Identity())
        self.act: nn.Module = getattr(layer, "act", nn.Identity())
        self.load_state_dict(layer.state_dict())

    def forward(self, images: Tensor) -> Tensor:
        normal: Tensor = self.act(self.drop(self._normalised(images)))
        return normal

    def _normalised(self, images: Tensor) -> Tensor:
        if not self.training:
            return super().forward(images)
        x = images.float()
        mean = _average(x.mean(IMAGES_AND_PIXELS))
        centred = x - mean[:, None, None]
        variance = _average(centred.square().mean(IMAGES_AND_PIXELS))
        self._update_running_stats(mean.detach(), variance.detach(), dist.get_world_size() * x.numel() // x.shape[1])
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(images.dtype)

    @torch.no_grad()
    def _update_running_stats(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """As torch does: the running variance is the unbiased one, over `count` values."""
        assert self.running_mean is not None  # noqa: S101
        assert self.running_var is not None  # noqa: S101
        assert self.num_batches_tracked is not None  # noqa: S101
        assert self.momentum is not None  # noqa: S101
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        self.num_batches_tracked += 1


def synchronise_batch_norm(model: nn.Module) -> None:
    """Replace every `BatchNorm2d` inside `model`, timm's too; weights and running statistics stay."""
    for name, layer in list(model.named_modules()):
        if isinstance(layer, nn.BatchNorm2d) and not isinstance(layer, SynchronisedBatchNorm2d):
            model.set_submodule(name, SynchronisedBatchNorm2d(layer))


def _average(values: Tensor) -> Tensor:
    summed: Tensor = _Sum.apply(values)
    return summed / dist.get_world_size()


class _Sum(torch.autograd.Function):
    """The sum over all processes. The gradient of one process's sum reaches the values of all."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:  # noqa: ARG004
        summed = values.clone()
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # noqa: ARG004
        return _Sum.apply(gradient)
