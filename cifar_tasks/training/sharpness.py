"""Sharpness-aware minimisation (SAM): training ends where the loss is low all around, not at one point alone.

P. Foret et al., https://arxiv.org/abs/2010.01412. Each of its steps costs two, and in the last epochs alone it gives
about what it gives in all of them (Z. Zhou et al., https://arxiv.org/abs/2410.10373). A batch is perturbed in parts,
each by itself: few images find a sharper direction than many (Foret et al., m-sharpness).
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.utils import get_total_norm

from cifar_tasks.config import TrainConfig


def sharpness_aware(config: TrainConfig, epoch: int) -> bool:
    """Whether this epoch, counted from 1, uses SAM: the last epochs do, as many as are whole in `sam_share`."""
    chosen = config.optimizer
    return chosen.sam_radius > 0 and epoch > config.epochs - int(config.epochs * chosen.sam_share)


@contextmanager
def sam_perturbation(model: nn.Module, radius: float) -> Iterator[None]:
    """Inside, the weights are moved by `radius` along their gradient: about to where the loss is highest.

    The distance is Euclidean, over all weights that have a gradient. On leaving, weights and running statistics are
    bit for bit what they were; the gradients are those that were computed inside.
    """
    moving = [(weight, weight.grad) for weight in model.parameters() if weight.grad is not None]
    everything = [*model.parameters(), *model.buffers()]
    with torch.no_grad():
        before = [tensor.clone() for tensor in everything]
        # A tensor on the device: reading it would be a synchronisation.
        length = get_total_norm(gradient for _, gradient in moving)
        for weight, gradient in moving:
            weight.add_(gradient * (radius / (length + 1e-12)))
    yield
    with torch.no_grad():
        for tensor, value in zip(everything, before, strict=True):
            tensor.copy_(value)
