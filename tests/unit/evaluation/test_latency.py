"""Speed of a model on this machine."""

import platform
import time

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cifar_tasks.evaluation.latency import measure_latency


class Sleeper(nn.Module):
    """Takes 2 ms, and 0.02 ms per image; notes the sizes of its batches."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.batches: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.batches.append(len(images))
        time.sleep(0.002 + 0.00002 * len(images))
        return torch.zeros(len(images), 2)


def test_latency_of_one_image_and_of_a_large_batch_after_a_warm_up():
    model = Sleeper()
    result = measure_latency(model, np.zeros((10, 32, 32, 3), np.uint8))
    assert set(model.batches) == {1, 256}
    assert result.batch == 256
    assert 2 < result.single_ms < result.batch_ms
    assert result.batch_ms > 7
    assert result.images_per_second == pytest.approx(256_000 / result.batch_ms)


def test_large_images_have_a_smaller_batch():
    result = measure_latency(Sleeper(), np.zeros((2, 512, 512, 3), np.uint8))
    assert result.batch == 1
    assert result.single_ms == result.batch_ms


def test_the_machine_is_named():
    result = measure_latency(Sleeper(), np.zeros((1, 32, 32, 3), np.uint8))
    assert (result.machine, result.threads) == (platform.node(), torch.get_num_threads())
    assert result.device
    for part in (result.hardware, f"{result.single_ms:.1f} ms for one image", "for 256"):
        assert part in str(result)
