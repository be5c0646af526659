"""Precision follows what the hardware multiplies fast."""

import pytest
import torch
from torch import nn

from cifar_tasks.training import distributed
from cifar_tasks.training.device import (
    autocast,
    choose_device,
    depthwise_in_float32,
    describe,
    images_at_once,
    inference_batches,
    precision,
)

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
def test_on_a_cpu_depthwise_convolutions_alone_leave_mixed_precision(groups, expected):
    network = nn.Sequential(nn.Conv2d(8, 8, 3, groups=groups), nn.Conv2d(8, 8, 1))
    types: list[torch.dtype] = []
    for layer in network:
        layer.register_forward_hook(lambda *call: types.append(call[-1].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        with depthwise_in_float32(network, CPU):
            network(torch.zeros(1, 8, 5, 5))
        network(torch.zeros(1, 8, 5, 5))
    assert types == [expected, torch.bfloat16, torch.bfloat16, torch.bfloat16]


def test_a_convolution_that_fails_leaves_mixed_precision_on():
    network = nn.Conv2d(8, 8, 3, groups=8)
    with torch.autocast("cpu", torch.bfloat16), depthwise_in_float32(network, CPU):
        with pytest.raises(RuntimeError):
            network(torch.zeros(1, 3, 5, 5))
        assert torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (torch.zeros(1, 32, 32, 3, dtype=torch.uint8), 64),
        (torch.zeros(1, 48, 48, 3, dtype=torch.uint8), 28),
        (torch.zeros(1, 128, 128, 3, dtype=torch.uint8), 4),
        (torch.zeros(1, 1024, 14, 14), 64),
        (torch.zeros(1, 2048), 64),
    ],
    ids=["small images", "larger images", "large images", "feature maps", "features"],
)
def test_as_many_images_are_taken_at_once_as_need_the_memory_of_a_batch_of_cifar_10(images, expected):
    assert images_at_once(images, 64) == expected


def test_a_cpu_infers_in_small_batches():
    batches = inference_batches(torch.zeros(200, 32, 32, 3, dtype=torch.uint8), CPU)
    assert [len(batch) for batch in batches] == [64, 64, 64, 8]


def test_the_record_of_a_figure_names_the_processor_its_threads_and_the_precision(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"cpu_name": "Processor 7", "amx_bf16": True})
    assert describe(CPU) == f"Processor 7, {torch.get_num_threads()} threads, bfloat16"


@pytest.mark.parametrize(("processes", "expected"), [(1, "cuda"), (2, "cuda:1")])
def test_each_of_several_processes_has_a_gpu_of_its_own(processes, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(distributed, "size", lambda: processes)
    monkeypatch.setattr(distributed, "rank", lambda: 1)
    assert str(choose_device()) == expected
