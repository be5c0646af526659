"""All that is measured of a model on 10,000 test images, figures drawn, beside a plain pass over them."""

import io

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.measure import Row, interleaved, rate
from benchmarks.training_speed import CNN, GREY, random_split
from cifar_tasks.evaluation import plots
from cifar_tasks.evaluation.metrics import confused_positions, evaluate
from cifar_tasks.evaluation.scores import score_model
from cifar_tasks.models.classifier import build_classifier
from cifar_tasks.training.logits import predict_logits

IMAGES = 10_000
CLASSES = tuple(f"class {number}" for number in range(10))
MOST = 2.5
"""Times the plain pass."""


def measure(rounds: int) -> list[Row]:
    test = random_split(IMAGES)
    images, labels = test.images.numpy(), test.labels.numpy()
    model = build_classifier(CNN, len(CLASSES), *GREY).eval()
    work = {
        "plain": lambda: evaluate(predict_logits(model, images).argmax(axis=1), labels, CLASSES),
        "whole": lambda: evaluation_with_figures(model, images, labels),
    }
    # A round takes a minute or more.
    figures = interleaved({name: rate(IMAGES, do) for name, do in work.items()}, min(rounds, 2), "evaluation")
    taken = {"all of it": f"{IMAGES / figures['whole']:.1f} s", "plain pass": f"{IMAGES / figures['plain']:.1f} s"}
    return [Row("evaluation of 10,000 images", taken, figures.ratio("whole", "plain"), 1 / MOST)]


def evaluation_with_figures(model: torch.nn.Module, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
    """What the step does, without storage and MLflow."""
    scores, probabilities = score_model(model, images, labels, CLASSES)
    predicted = probabilities.argmax(axis=1)
    numbers = {name: number for number, name in enumerate(CLASSES)}
    pairs = [
        (pair.true, pair.predicted, pair.images, images[found])
        for pair in scores.confused[:8]
        for found in [confused_positions(labels, probabilities, numbers[pair.true], numbers[pair.predicted])]
    ]
    shown = plots.sample_indices(len(labels), 0)
    names = [[CLASSES[number] for number in part[shown]] for part in (labels, predicted)]
    for figure in (
        plots.confusion_matrix(evaluate(predicted, labels, CLASSES).confusion, CLASSES, "title"),
        plots.reliability_diagram(scores.calibration, "title"),
        plots.confused_images(pairs, "title"),
        plots.image_grid(images[shown], *names),
    ):
        figure.savefig(io.BytesIO())
