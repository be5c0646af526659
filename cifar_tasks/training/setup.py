"""What training starts from: samples of the images, on the device, and the statistics that a new model needs."""

import logging
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cifar_tasks.config import TrainConfig, flat
from cifar_tasks.models import Channels
from cifar_tasks.models.classifier import count_parameters
from cifar_tasks.training import distributed
from cifar_tasks.training.device import describe, precision
from cifar_tasks.training.logits import as_tensor
from cifar_tasks.training.loop import Split

STATISTICS_PIXELS = 256 * 32 * 32
"""Of the images that batch norm's running statistics start with: 256 small images, or fewer large ones, because the
activations of all of them are in memory at once."""
CHUNK = 512
"""Images whose channels are counted at once."""

_log = logging.getLogger(__name__)


def sample_indices(labels: NDArray[np.int64], wanted: int, seed: int) -> NDArray[np.int64]:
    """`wanted` different positions in ascending order, of each class in proportion; the same for the same seed."""
    random = np.random.default_rng(seed)
    shuffled = random.permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    # Every n-th of them: each class gives its share, rounded up or down.
    return np.sort(by_class[((np.arange(wanted) + random.random()) * len(labels) / wanted).astype(np.int64)])


def to_split(device: torch.device, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> Split:
    """The images on the device if they fit there; else where they are, without a copy."""
    split = Split(as_tensor(images), torch.from_numpy(labels))
    try:
        return Split(split.images.to(device), split.labels.to(device))
    except torch.OutOfMemoryError:
        _log.info("GPU memory does not hold %d images: they are moved batch by batch", len(images))
        return split


def channel_statistics(images: NDArray[np.uint8]) -> tuple[Channels, Channels]:
    """Mean and deviation of each colour channel, of values 0–1; a channel without contrast counts as deviation 1."""
    histogram = np.zeros((images.shape[-1], 256), np.int64)
    for start in range(0, len(images), CHUNK):  # few at a time: they may be more than memory holds
        part = images[start : start + CHUNK]
        histogram += [np.bincount(part[..., channel].ravel(), minlength=256) for channel in range(len(histogram))]
    values, count = np.arange(256), histogram[0].sum()
    mean, square = histogram @ values / count, histogram @ values**2 / count
    deviation = np.sqrt(np.maximum(square - mean**2, 0))
    return _channels(mean), _channels(np.where(deviation > 0, deviation, 255))


@torch.no_grad()
def init_running_stats(model: nn.Module, images: NDArray[np.uint8]) -> None:
    """Set batch norm's running statistics of a model with random weights to those of a batch of the images.

    torch starts with mean 0 and variance 1. After ten steps a third of that is left, many times the variance of
    untrained layers, so that a model which has learnt a small data set by then would be saved guessing.
    """
    wanted = min(256, max(8, STATISTICS_PIXELS // (images.shape[1] * images.shape[2])))
    every = -(-len(images) // wanted)  # from all over the data: folders come class by class
    layers = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 1.0
    model.train()(as_tensor(images[::every]))
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum


def run_params(config: TrainConfig, model: nn.Module, initial_weights: str, device: torch.device) -> dict[str, Any]:
    """What MLflow and Weights & Biases show of a training: its configuration, what it starts from and runs on."""
    counted = {f"parameters_{kind}": number for kind, number in count_parameters(model).items()}
    runs_on = {"device": describe(device), "processes": distributed.size(), "threads": torch.get_num_threads()}
    runs_on["precision"] = str(precision(device)).removeprefix("torch.")
    return {**flat(config), **counted, "initial_weights": initial_weights, **runs_on}


def _channels(values: NDArray[np.float64]) -> Channels:
    red, green, blue = (float(value) / 255 for value in values)
    return red, green, blue
