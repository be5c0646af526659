"""Logits of many images."""

import warnings

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from cifar_tasks.training.device import autocast, inference_batches

RESIZED_AT_ONCE = 500
"""Images."""


def predict_logits(model: nn.Module, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Logits (N, classes) of images (N, H, W, C), computed in float32 on the model's device.

    The model must be in evaluation mode; an exported one always is.
    """
    logits: NDArray[np.float32] = compute_logits(model, as_tensor(images)).cpu().numpy()
    return logits


@torch.inference_mode()
def compute_logits(model: nn.Module, images: Tensor) -> Tensor:
    """As `predict_logits`; the logits stay on the model's device."""
    device = next(model.parameters()).device
    return torch.cat([model(batch.to(device)) for batch in inference_batches(images, device)]).float()


def resized(images: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Square images (N, H, H, 3) in another size, (N, size, size, 3); the same array if they have it already."""
    if images.shape[1] == size:
        return images
    batches = torch.split(as_tensor(images).permute(0, 3, 1, 2), RESIZED_AT_ONCE)
    scaled = [F.interpolate(batch, size=(size, size), mode="bilinear", antialias=True) for batch in batches]
    result: NDArray[np.uint8] = torch.cat(scaled).permute(0, 2, 3, 1).contiguous().numpy()
    return result


def as_tensor(images: NDArray[np.uint8]) -> Tensor:
    """The images without a copy. Nothing writes to them; they may be a read-only file that is mapped into memory."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(images)


class FastClassifier(nn.Module):
    """A model in the precision that the device is fast in (`training.device.precision`), a little less exact.

    On a CPU with AMX the CNN is more than three times as fast, with AVX-512 BF16 twice (docs/benchmarks.md). Where the
    hardware is fast in float32 alone nothing changes. Evaluation never uses it: metrics are computed in float32.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    @torch.inference_mode()
    def forward(self, images: Tensor) -> Tensor:
        """float32 logits (N, classes) of uint8 images (N, H, W, C)."""
        with autocast(images.device):
            logits: Tensor = self.model(images)
        return logits.float()
