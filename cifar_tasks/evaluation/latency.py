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
SECONDS = 1.0
"""After which no round begins: of a slow model few are enough."""


class Latency(BaseModel):
    """Medians, in float32, from the images in memory to the logits in memory."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    single_ms: float
    """Of one image alone, in milliseconds."""
    batch: int
    """Images in a large batch: 256, or all test images if they are fewer, or large ones that take as much memory."""
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
    """Of a model in evaluation mode, on its device; images (N, H, W, 3)."""
    import torch

    from cifar_tasks.training.device import images_at_once
    from cifar_tasks.training.logits import as_tensor

    tensor = as_tensor(images)
    large = tensor[: images_at_once(tensor, LARGE_BATCH)].clone()  # not a file that is mapped into memory
    single_ms, batch_ms = _median_ms(model, large[:1], SINGLE_ROUNDS), _median_ms(model, large, LARGE_ROUNDS)
    device, batch = next(model.parameters()).device, len(large)
    return Latency(
        single_ms=single_ms,
        batch=batch,
        batch_ms=batch_ms,
        images_per_second=1000 * batch / batch_ms,
        machine=platform.node(),
        device=_name(device),
        threads=torch.get_num_threads(),
    )


def _median_ms(model: "nn.Module", images: "torch.Tensor", rounds: int) -> float:
    """The first round warms up, and counts only if there is no other one."""
    import torch

    device, taken = next(model.parameters()).device, list[float]()
    with torch.inference_mode():
        while len(taken) <= rounds and sum(taken) < 1000 * SECONDS:
            began = time.perf_counter()
            model(images.to(device)).cpu()  # waits for a GPU
            taken.append(1000 * (time.perf_counter() - began))
    return statistics.median(taken[1:] or taken)


def _name(device: "torch.device") -> str:
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return str(torch.cpu.get_capabilities().get("cpu_name", "CPU"))
