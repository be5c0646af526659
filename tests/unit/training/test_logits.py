"""Logits of many images: exact ones, and fast ones."""

import numpy as np
import pytest
import torch

from cifar_tasks.models import get_model
from cifar_tasks.models.classifier import ImageClassifier, build_classifier
from cifar_tasks.training import device
from cifar_tasks.training.logits import FastClassifier, predict_logits, resized
from cifar_tasks.training.setup import init_running_stats

IMAGES = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def model() -> ImageClassifier:
    torch.manual_seed(0)
    model = build_classifier(get_model("cnn").recipes["full"], 10, (0.5,) * 3, (0.25,) * 3)
    init_running_stats(model, IMAGES)  # so that activations are ordinary
    return model.eval()


def test_the_logits_of_many_images_are_those_of_each_batch(model, monkeypatch):
    monkeypatch.setattr("cifar_tasks.training.device.CPU_INFERENCE_BATCH", 24)
    logits = predict_logits(model, IMAGES)
    assert logits.dtype == np.float32
    with torch.inference_mode():
        assert logits == pytest.approx(model(torch.from_numpy(IMAGES)).numpy(), abs=1e-5)


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float32])
def test_the_fast_classifier_computes_in_the_precision_of_the_device(model, monkeypatch, precision):
    monkeypatch.setattr(device, "precision", lambda _: precision)
    seen = []
    hook = model.network.features[0].register_forward_hook(lambda _, inputs, output: seen.append(output.dtype))
    fast, exact = predict_logits(FastClassifier(model), IMAGES), predict_logits(model, IMAGES)
    hook.remove()
    assert seen == [precision, torch.float32]
    assert FastClassifier(model)(torch.from_numpy(IMAGES[:2])).dtype is torch.float32
    assert np.abs(fast - exact).max() < 0.1 * exact.std()


def test_images_are_resized_to_the_size_of_an_older_champion_and_left_alone_if_they_have_it():
    halves = np.zeros((3, 64, 64, 3), np.uint8)
    halves[:, :, 32:] = 200
    small = resized(halves, 32)
    assert (small.shape, small.dtype) == ((3, 32, 32, 3), np.uint8)
    assert (small[:, :, :14] == 0).all()
    assert (small[:, :, 18:] == 200).all()
    assert resized(halves, 64) is halves
