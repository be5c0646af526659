"""Whether probabilities can be believed: of the predictions with 80 % confidence, are 80 % right?"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

BINS = 15
"""As in Guo et al., "On Calibration of Modern Neural Networks" (2017)."""


class ReliabilityBin(BaseModel):
    """Predictions of nearly the same confidence; the bins divide 0–1 into equal parts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    images: int
    confidence: float
    """Mean probability of the predicted class; 0 without images."""
    accuracy: float
    """Share of 0–1; 0 without images."""


class Calibration(BaseModel):
    """Of one model on one split."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    expected_error: float
    """Expected calibration error: mean distance of confidence and accuracy over the bins, by their images. 0–1."""
    brier: float
    """Brier score: mean squared distance of the probabilities from the truth, summed over the classes. 0–2."""
    bins: tuple[ReliabilityBin, ...]


def calibrate(probabilities: NDArray[np.floating[Any]], labels: NDArray[np.int64]) -> Calibration:
    """Of probabilities (N, classes), of any precision, and labels (N,)."""
    return summarize(per_image(probabilities, labels))


class PerImage(NamedTuple):
    """What calibration is made of; arrays (N,)."""

    bin: NDArray[np.int64]
    confidence: NDArray[np.float64]
    right: NDArray[np.bool_]
    squares: NDArray[np.float32]
    """Squared distance of the probabilities from the truth, summed over the classes."""


def per_image(probabilities: NDArray[np.floating[Any]], labels: NDArray[np.int64]) -> PerImage:
    p = probabilities.astype(np.float32)
    confidence = p.max(axis=1).astype(np.float64)
    return PerImage(
        bin=np.minimum((confidence * BINS).astype(np.int64), BINS - 1),
        confidence=confidence,
        right=p.argmax(axis=1) == labels,
        squares=np.einsum("ij,ij->i", p, p) - 2 * p[np.arange(len(labels)), labels] + 1,
    )


def summarize(each: PerImage) -> Calibration:
    images = np.bincount(each.bin, minlength=BINS)
    filled = np.maximum(images, 1)
    mean_confidence = np.bincount(each.bin, each.confidence, BINS) / filled
    accuracy = np.bincount(each.bin, each.right, BINS) / filled
    return Calibration(
        expected_error=float(np.average(np.abs(mean_confidence - accuracy), weights=images)),
        brier=float(each.squares.mean(dtype=np.float64)),
        bins=tuple(
            ReliabilityBin(images=int(n), confidence=float(c), accuracy=float(a))
            for n, c, a in zip(images, mean_confidence, accuracy, strict=True)
        ),
    )


def to_float16(logits: NDArray[np.float32]) -> NDArray[np.float16]:
    """Probabilities (N, classes) of the logits, to be stored.

    float16 can make two classes equal. The predicted class stays the largest, so that accuracy and all comparisons
    are the same from the stored probabilities as from the logits.
    """
    from scipy.special import softmax

    rounded: NDArray[np.float16] = softmax(logits.astype(np.float64), axis=1).astype(np.float16)
    predicted = logits.argmax(axis=1)
    moved = np.flatnonzero(rounded.argmax(axis=1) != predicted)
    rounded[moved, predicted[moved]] = np.nextafter(rounded[moved].max(axis=1), np.float16(2))
    return rounded
