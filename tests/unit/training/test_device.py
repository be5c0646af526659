"""Precision follows what the hardware multiplies fast."""

import pytest
import torch
from torch import nn

from cifar_tasks.training.device import autocast, images_at_once, inference_batches, precision, training_precision

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("able", "expected"),
    [
        ({"amx_bf16": True, "avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": False, "avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": False, "avx512_bf16": False, "avx512_f": True}, torch.float32),
        ({}, torch.float32),
    ],
    ids=["amx", "avx512 bf16", "avx512 alone", "says nothing"],
)
def test_a_cpu_computes_in_bfloat16_only_where_it_has_instructions_for_it(able, expected, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    assert precision(CPU) is expected
    with autocast(CPU):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype is expected


@pytest.mark.parametrize(("groups", "expected"), [(1, torch.bfloat16), (8, torch.float32)])
def test_a_cpu_trains_depthwise_convolutions_in_float32(groups, expected, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    assert training_precision(nn.Sequential(nn.Conv2d(8, 8, 3, groups=groups)), CPU) is expected


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (torch.zeros(1, 32, 32, 3, dtype=torch.uint8), 64),
        (torch.zeros(1, 128, 128, 3, dtype=torch.uint8), 4),
        (torch.zeros(1, 1024, 14, 14), 64),
        (torch.zeros(1, 2048), 64),
    ],
    ids=["small images", "large images", "feature maps", "features"],
)
def test_as_many_images_are_taken_at_once_as_need_the_memory_of_a_batch_of_cifar_10(images, expected):
    assert images_at_once(images, 64) == expected


def test_a_cpu_infers_in_small_batches():
    batches = inference_batches(torch.zeros(200, 32, 32, 3, dtype=torch.uint8), CPU)
    assert [len(batch) for batch in batches] == [64, 64, 64, 8]
