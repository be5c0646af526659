"""What a training starts from: weights, running statistics, and what happens where pretrained weights are missing."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from cifar_tasks.config import TrainConfig, with_values
from cifar_tasks.data.images import LabelledImages
from cifar_tasks.data.versions import DatasetVersion
from cifar_tasks.errors import WeightsError
from cifar_tasks.models import get_model
from cifar_tasks.steps.inputs import TrainingImages, initial_model


@pytest.fixture
def images() -> TrainingImages:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3), dtype=np.uint8)
    part = LabelledImages(pixels, np.arange(16) % 2)
    described = dict.fromkeys(DatasetVersion.__dataclass_fields__) | {"classes": ("ant", "bee")}
    return TrainingImages(DatasetVersion(**described), part, part)


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = {"source": "/nowhere/resnet50.pth", "sha256": "0" * 64}
    monkeypatch.setenv("CIFAR_PRETRAINED_WEIGHTS", json.dumps({"resnet50": missing}))


def config(model: str, **values: object) -> TrainConfig:
    return with_values(get_model(model).config("demo"), values)


def batch_norms(model: nn.Module) -> list[nn.BatchNorm2d]:
    return [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]


def test_a_new_model_begins_with_the_running_statistics_of_the_images(images):
    model, _, weights = initial_model(config("cnn"), images)
    assert weights is None
    assert all(layer.running_mean.abs().sum() > 0 for layer in batch_norms(model))
    assert not any(torch.equal(layer.running_var, torch.ones_like(layer.running_var)) for layer in batch_norms(model))


def test_the_seed_decides_the_first_weights(images):
    first, again, other = (initial_model(config("cnn", seed=seed), images)[0].state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_required_weights_that_are_missing_are_an_error(images, no_weights):
    with pytest.raises(WeightsError, match="/nowhere/resnet50"):
        initial_model(config("resnet50", pretrained="required"), images)


def test_preferred_weights_that_are_missing_leave_random_ones_and_no_transfer(images, no_weights, caplog):
    _, recipe, weights = initial_model(config("resnet50", pretrained="preferred"), images)
    assert weights is None
    assert (recipe.transfer.head_epochs, recipe.transfer.stage_decay) == (0, 1.0)
    assert "RANDOM WEIGHTS: ResNet50" in caplog.text
