"""How the CNN's first layer starts: with filters that whiten the patches of the training images."""

import torch
from torch import Tensor, nn

from cifar_tasks.models import ImageClassifier

SAMPLE = 2_000
"""Images whose patches are looked at."""
CHUNK = 100_000
"""Patches that are held in float64 at once."""
SOFTENING = 0.05
"""Added to the variances, so that directions of mere noise are not blown up."""


@torch.no_grad()
def whiten_first_layer(model: ImageClassifier, images: Tensor) -> None:
    """Start the first convolution as a whitening of 3×3 patches, each direction with both signs; the rest is random.

    `images` uint8 (N, H, W, 3), of the training split. After KellerJordan/cifar10-airbench, whose layer stays frozen;
    here it goes on learning.
    """
    first = next(layer for layer in model.modules() if isinstance(layer, nn.Conv2d))
    directions = _whitening(model.prepare(images[:SAMPLE].to(model.mean.device)), first.kernel_size[0])
    filters = torch.cat([directions, -directions])[: first.out_channels]
    rest = first.weight[len(filters) :]
    rest *= filters.flatten(1).norm(dim=1).mean() / rest.flatten(1).norm(dim=1).mean()
    first.weight[: len(filters)] = filters


def _whitening(x: Tensor, size: int) -> Tensor:
    """Eigenvectors of the patches' second moments, scaled to unit variance, the strongest first.

    (N, C, H, W) in, (C · size², C, size, size) out.
    """
    channels = x.shape[1]
    patches = x.unfold(2, size, 1).unfold(3, size, 1).permute(0, 2, 3, 1, 4, 5).reshape(-1, channels * size * size)
    # In float64: float32 sums differ with the number of threads, and eigenvectors of similar variances much more.
    moments = torch.zeros(patches.shape[1], patches.shape[1], dtype=torch.float64, device=x.device)
    for part in torch.split(patches, CHUNK):
        moments += part.double().T @ part.double()
    variances, vectors = torch.linalg.eigh(moments / len(patches))
    filters: Tensor = vectors / torch.sqrt(variances + SOFTENING)
    return filters.T.flip(0).reshape(-1, channels, size, size).float()
