"""The depthwise convolutions of EfficientNet-Lite0 in training, beside the memory traffic that they cannot avoid.

A depthwise convolution does few operations per value, so memory is its limit. Forward and backward read the input and
the gradient of the output twice, and write the output and the gradient of the input: six tensors, three copies.
"""

from collections.abc import Callable

import timm
import torch
from torch import Tensor, nn

from benchmarks.measure import Row, interleaved, rate
from benchmarks.pretrained_speed import BATCH, SIDE
from cifar_tasks.models.builtin.efficientnet_lite0 import NETWORK

Layers = list[tuple[nn.Conv2d, Tensor]]
"""Each with an input of the shape that it has in the network."""
Convolution = Callable[[Tensor], Tensor]


def measure(rounds: int) -> list[Row]:
    layers = depthwise_layers()
    bfloat16 = [(layer.to(torch.bfloat16), images.bfloat16()) for layer, images in depthwise_layers()]
    contiguous = [(layer, images.contiguous()) for layer, images in depthwise_layers(torch.contiguous_format)]
    compiled: list[tuple[Convolution, Tensor]] = [(torch.compile(layer), images) for layer, images in layers]
    buffers = buffers_of(layers)
    candidates = {
        "copies": rate(BATCH, lambda: copy(buffers)),
        "product": rate(BATCH, lambda: train(layers)),
        "contiguous": rate(BATCH, lambda: train(contiguous)),
        "bfloat16": rate(BATCH, lambda: train(bfloat16)),
        "compiled": rate(BATCH, lambda: train(compiled)),
    }
    figures = interleaved(candidates, rounds, "depthwise convolutions")

    def row(name: str) -> Row:
        both = {name: f"{figures[name]:.0f}", "copies": f"{figures['copies']:.0f} images/s"}
        return Row(f"depthwise convolutions, {name}", both, figures.ratio(name, "copies"))

    return [row(name) for name in candidates if name != "copies"]


def depthwise_layers(memory_format: torch.memory_format = torch.channels_last) -> Layers:
    model = timm.create_model(NETWORK, num_classes=10).to(memory_format=memory_format)
    found: Layers = []

    def keep(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, nn.Conv2d)
        found.append((layer, inputs[0].detach().clone(memory_format=memory_format).requires_grad_()))

    for layer in model.modules():
        if isinstance(layer, nn.Conv2d) and layer.groups > 1:
            layer.register_forward_pre_hook(keep)
    with torch.no_grad():
        model(torch.randn(BATCH, 3, SIDE, SIDE).contiguous(memory_format=memory_format))
    for layer, _ in found:
        layer._forward_pre_hooks.clear()
    return found


def train(layers: Layers | list[tuple[Convolution, Tensor]]) -> None:
    for layer, images in layers:
        images.grad = None
        output = layer(images)
        output.backward(output.detach())


def buffers_of(layers: Layers) -> list[Tensor]:
    """For each layer a tensor as large as the mean of its input and its output, which differ if it has a stride."""
    return [torch.zeros((images.numel() + layer(images).numel()) // 2) for layer, images in layers]


def copy(buffers: list[Tensor]) -> None:
    for buffer in buffers:
        target = torch.empty_like(buffer)
        for _ in range(3):
            target.copy_(buffer)
