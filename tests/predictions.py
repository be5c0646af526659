"""Probabilities of models whose accuracy is known."""

import numpy as np
from numpy.typing import NDArray

from cifar_tasks.evaluation.calibration import calibrate
from cifar_tasks.evaluation.latency import Latency
from cifar_tasks.evaluation.metrics import class_scores, confused_pairs, evaluate
from cifar_tasks.evaluation.robustness import ALTERATIONS, Robustness
from cifar_tasks.evaluation.scores import Scores


def labels_of(images: int, classes: int) -> NDArray[np.int64]:
    """Each class in turn."""
    return np.arange(images) % classes


def probabilities_of(
    labels: NDArray[np.int64], classes: int, wrong: NDArray[np.int64] | list[int] = (), confidence: float = 0.9
) -> NDArray[np.float16]:
    """Of a model that takes the images at these positions for the class after theirs."""
    predicted = labels.copy()
    positions = np.asarray(wrong, dtype=np.int64)
    predicted[positions] = (predicted[positions] + 1) % classes
    found = np.full((len(labels), classes), (1 - confidence) / max(classes - 1, 1), np.float16)
    found[np.arange(len(labels)), predicted] = confidence
    return found


def scores_of(probabilities: NDArray[np.float16], labels: NDArray[np.int64], classes: tuple[str, ...]) -> Scores:
    """What the evaluation of a model with these probabilities stores; latency and robustness are made up."""
    evaluation = evaluate(probabilities.argmax(axis=1), labels, classes)
    altered = dict.fromkeys(ALTERATIONS, evaluation.accuracy / 2)
    return Scores(
        loss=0.5,
        accuracy=evaluation.accuracy,
        calibration=calibrate(probabilities, labels),
        classes=class_scores(evaluation),
        confused=confused_pairs(evaluation.confusion, classes),
        robustness=Robustness(images=len(labels), unaltered=evaluation.accuracy, accuracies=altered),
        latency=Latency(
            single_ms=2.5, batch=256, batch_ms=320, images_per_second=800, machine="worker", device="CPU", threads=2
        ),
    )
