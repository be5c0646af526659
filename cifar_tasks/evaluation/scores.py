"""All that is measured of a model on test images."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from cifar_tasks.errors import IntegrityError
from cifar_tasks.evaluation.calibration import Calibration, calibrate, to_float16
from cifar_tasks.evaluation.latency import Latency, measure_latency
from cifar_tasks.evaluation.metrics import (
    ClassScores,
    ConfusedPair,
    class_scores,
    confused_pairs,
    cross_entropy,
    evaluate,
)
from cifar_tasks.evaluation.robustness import Robustness, robustness

if TYPE_CHECKING:  # scores are read without torch
    from torch import nn


class Scores(BaseModel):
    """Of one model on one test set."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    loss: float
    """Mean cross-entropy in nats."""
    accuracy: float
    """Share of 0–1."""
    calibration: Calibration
    classes: tuple[ClassScores, ...]
    """In the order of the logits."""
    confused: tuple[ConfusedPair, ...]
    """The ten pairs that are confused most often."""
    robustness: Robustness
    latency: Latency


def score_model(
    model: "nn.Module", images: NDArray[np.uint8], labels: NDArray[np.int64], classes: tuple[str, ...]
) -> tuple[Scores, NDArray[np.float16]]:
    """The scores and the probabilities (N, classes) of a model in evaluation mode, on its device.

    Raises `IntegrityError` if the logits are not finite numbers for each of the classes.
    """
    from cifar_tasks.training.logits import predict_logits

    logits = predict_logits(model, images)
    if logits.shape[1] != len(classes) or not np.isfinite(logits).all():
        raise IntegrityError(
            f"the model has no finite logits for each of the {len(classes)} classes: it gives {logits.shape[1]}, "
            f"{int(np.isfinite(logits).all(axis=1).sum())} of {len(logits)} images have finite ones. Train again."
        )
    predicted, probabilities = logits.argmax(axis=1), to_float16(logits)
    evaluation = evaluate(predicted, labels, classes)
    scores = Scores(
        loss=cross_entropy(logits, labels),
        accuracy=evaluation.accuracy,
        calibration=calibrate(probabilities, labels),
        classes=class_scores(evaluation),
        confused=confused_pairs(evaluation.confusion, classes),
        robustness=robustness(
            lambda altered: predict_logits(model, altered).argmax(axis=1), images, labels, predicted == labels
        ),
        latency=measure_latency(model, images),
    )
    return scores, probabilities
