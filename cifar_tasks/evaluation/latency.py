"""How fast a saved model is on the machine that evaluates it."""

import platform
import statistics
import time
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:  # what was measured is read without torch
    import torch
    from torch import nn

LARGE_BATCH = 256
SINGLE_ROUNDS, LARGE_ROUNDS = 20, 3


class Latency(BaseModel):
    """Medians, in float32, from the images in memory to the logits in memory."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    single_ms: float
    """Of one image alone, in milliseconds."""
    batch: int
    """Images in a large batch: 256, or fewer large images, which take as much memory."""
    batch_ms: float
    """Of a large batch, in milliseconds."""
    images_per_second: float
    """In large batches."""
    machine: str
    """Name of the machine in its network."""
    device: str
    """Name of the processor or the GPU."""
    threads: int
    """That computed; a GPU's do not count."""

    @property
    def hardware(self) -> str:
        """As a person reads it."""
        return f"{self.machine}, {self.device}, {self.threads} thread{'s' if self.threads > 1 else ''}"

    def __str__(self) -> str:
        return (
            f"{self.single_ms:.1f} ms for one image, {self.batch_ms:.0f} ms for {self.batch}, "
            f"{self.images_per_second:,.0f} images/s on {self.hardware}"
        )


def measure_latency(model: "nn.Module", images: NDArray[np.uint8]) -> Latency:
    """Of a model in evaluation mode, on its device; images (N, H, W, 3), which are repeated if they are few."""
    import torch

    from cifar_tasks.training.device import images_at_once
    from cifar_tasks.training.logits import as_tensor, compute_logits

    device = next(model.parameters()).device
    batch = images_at_once(as_tensor(images), LARGE_BATCH)
    large = as_tensor(np.resize(images[:batch], (batch, *images.shape[1:])))
    milliseconds = {}
    for part, rounds in ((large[:1], SINGLE_ROUNDS), (large, LARGE_ROUNDS)):
        taken = []
        for _ in range(rounds + 1):  # the first one warms up
            began = time.perf_counter()
            compute_logits(model, part).cpu()  # waits for a GPU
            taken.append(1000 * (time.perf_counter() - began))
        milliseconds[len(part)] = statistics.median(taken[1:])
    return Latency(
        single_ms=milliseconds[1],
        batch=batch,
        batch_ms=milliseconds[batch],
        images_per_second=1000 * batch / milliseconds[batch],
        machine=platform.node(),
        device=_name(device),
        threads=torch.get_num_threads(),
    )


def _name(device: "torch.device") -> str:
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return str(torch.cpu.get_capabilities().get("cpu_name", "CPU"))
