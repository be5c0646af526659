"""The fast classifier gives the saved model's answers, and float32 logits."""

import torch

from cifar_tasks.config import cnn_full
from cifar_tasks.models import build_classifier
from cifar_tasks.training.fast import FastClassifier


def test_fast_logits_are_float32_and_near_the_exact_ones():
    torch.manual_seed(0)
    model = build_classifier(cnn_full(), 10, (0.5,) * 3, (0.25,) * 3)
    images = torch.randint(0, 256, (64, 32, 32, 3), dtype=torch.uint8)
    with torch.inference_mode():
        model.train()(images)  # statistics of these images, so that activations are ordinary
        exact = model.eval()(images)

    fast = FastClassifier(model)(images)

    assert fast.dtype is torch.float32
    assert (fast - exact).abs().max() < 0.1 * exact.std()
