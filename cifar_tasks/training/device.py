"""Where training runs, and in which precision."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn

from cifar_tasks.training import distributed

CIFAR_PIXELS = 32 * 32
GPU_INFERENCE_BATCH, CPU_INFERENCE_BATCH = 500, 64
"""Images of CIFAR-10 in a batch without gradients. On a CPU more are slower, because activations leave the cache, and
take more memory: EfficientNet-Lite0 at 96 pixels 1.4 GB for 500 (docs/benchmarks.md)."""


def choose_device() -> torch.device:
    """CUDA where there is a GPU, one for each of several processes that train together; else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", distributed.rank()) if distributed.size() > 1 else torch.device("cuda")
    return torch.device("cpu")


def precision(device: torch.device) -> torch.dtype:
    """What convolutions and matrix products are computed in; everything else stays float32.

    bfloat16 where the hardware multiplies it: on GPUs from Ampere on and on CPUs with AMX or AVX-512 BF16, where
    the CNN trains three times and twice as fast (docs/benchmarks.md).
    """
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        able = torch.cpu.get_capabilities()
        fast = bool(able.get("amx_bf16") or able.get("avx512_bf16"))
    return torch.bfloat16 if fast else torch.float32


def autocast(device: torch.device, dtype: torch.dtype | None = None) -> AbstractContextManager[Any]:
    """Mixed precision where it is faster, or what `dtype` says."""
    dtype = dtype or precision(device)
    return nullcontext() if dtype is torch.float32 else torch.autocast(device.type, dtype=dtype)


@contextmanager
def depthwise_in_float32(model: nn.Module, device: torch.device) -> Iterator[None]:
    """On a CPU, leave depthwise convolutions out of mixed precision: their gradients take longer in bfloat16 than in
    float32. EfficientNet-Lite0 trains 1.1 times as fast as all in float32 (docs/training-log.md)."""
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d) and layer.groups > 1]
    full_precision = torch.autocast(device.type, enabled=False)

    def enter(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        full_precision.__enter__()  # type: ignore[no-untyped-call]
        return tuple(each.float() for each in inputs)

    def leave(*_: object) -> None:
        full_precision.__exit__(None, None, None)

    with ExitStack() as hooks:
        for layer in layers if device.type == "cpu" else ():
            hooks.callback(layer.register_forward_pre_hook(enter).remove)
            hooks.callback(layer.register_forward_hook(leave, always_call=True).remove)
        yield


def images_at_once(images: torch.Tensor, batch: int) -> int:
    """How many uint8 images (N, H, W, C) take as much memory as `batch` of CIFAR-10: activations grow with the pixels.

    Features, float32 (N, …), count as images of CIFAR-10.
    """
    pixels = CIFAR_PIXELS if images.is_floating_point() else images.shape[1] * images.shape[2]
    return max(1, batch * CIFAR_PIXELS // max(pixels, CIFAR_PIXELS))


def inference_batches(images: torch.Tensor, device: torch.device) -> tuple[torch.Tensor, ...]:
    """The images in batches for inference on this device."""
    return torch.split(
        images, images_at_once(images, GPU_INFERENCE_BATCH if device.type == "cuda" else CPU_INFERENCE_BATCH)
    )


def describe(device: torch.device) -> str:
    """The hardware, for the record beside every figure."""
    kind = str(precision(device)).removeprefix("torch.")
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, {kind}"
    name = torch.cpu.get_capabilities().get("cpu_name", "CPU")
    return f"{name}, {torch.get_num_threads()} threads, {kind}"
