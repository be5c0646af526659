"""Speed of a model on this machine."""

import platform
import time

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cifar_tasks.evaluation import latency
from cifar_tasks.evaluation.latency import measure_latency


class Sleeper(nn.Module):
    """Takes 2 ms, and 0.02 ms per image; its first rounds may take longer. Notes the sizes of its batches."""

    def __init__(self, first_ms: float = 0, image_ms: float = 0.02) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.batches: list[int] = []
        self.first_ms, self.image_ms = first_ms, image_ms

    def forward(self, images: Tensor) -> Tensor:
        first = len(images) not in self.batches
        self.batches.append(len(images))
        time.sleep((2 + self.image_ms * len(images) + self.first_ms * first) / 1000)
        return torch.zeros(len(images), 2)


def test_latency_of_one_image_and_of_a_large_batch_after_a_warm_up(monkeypatch):
    monkeypatch.setattr(latency, "SECONDS", 60)
    model = Sleeper(first_ms=1000)
    result = measure_latency(model, np.zeros((300, 32, 32, 3), np.uint8))
    assert (model.batches.count(1), model.batches.count(256)) == (21, 4)
    assert result.batch == 256
    assert 2 < result.single_ms < result.batch_ms
    assert 7 < result.batch_ms < 1000
    assert result.images_per_second == pytest.approx(256_000 / result.batch_ms)


def test_a_test_set_of_fewer_images_is_one_batch():
    assert measure_latency(Sleeper(), np.zeros((60, 32, 32, 3), np.uint8)).batch == 60


def test_a_slow_model_is_measured_once():
    model = Sleeper(image_ms=20)
    result = measure_latency(model, np.zeros((60, 32, 32, 3), np.uint8))
    assert model.batches.count(60) == 1
    assert result.batch_ms > 1200


def test_large_images_have_a_smaller_batch():
    result = measure_latency(Sleeper(), np.zeros((2, 512, 512, 3), np.uint8))
    assert result.batch == 1


def test_the_machine_is_named():
    result = measure_latency(Sleeper(), np.zeros((1, 32, 32, 3), np.uint8))
    assert (result.machine, result.threads) == (platform.node(), torch.get_num_threads())
    assert result.device
    for part in (result.hardware, f"{result.single_ms:.1f} ms for one image", "for 1,"):
        assert part in str(result)
