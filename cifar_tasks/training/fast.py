"""A loaded model made faster, for callers with many images who can do with logits that are a little less exact."""

import torch
from torch import Tensor, nn

from cifar_tasks.training.device import autocast


class FastClassifier(nn.Module):
    """The model in the precision that the device is fast in (`training.device.precision`).

    On a CPU with AMX the CNN answers more than three times as fast, with AVX-512 BF16 twice (docs/benchmarks.md); where
    float32 is what the hardware is fast in nothing changes. Evaluation never uses it: what is measured there stays
    float32.
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
