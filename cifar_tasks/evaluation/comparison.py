"""Two models on the same test images: how their accuracies differ, and how sure that is."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from cifar_tasks.evaluation.calibration import calibrate

SMALLEST_P = 1e-300
"""That is shown."""
RESAMPLES = 2_000
"""Of the bootstrap: the bounds of the interval vary by a fiftieth of its width from seed to seed."""
INDICES_AT_ONCE = 1_000_000
"""Of the bootstrap, in memory."""

Probabilities = NDArray[np.floating[Any]]


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ClassComparison(_Value):
    """The test images of one class."""

    name: str
    images: int
    candidate_recall: float
    """Share of 0–1; 0 without images."""
    champion_recall: float
    difference: float
    """Candidate less champion."""
    p_value: float
    """Of McNemar's exact test, two-sided."""


class Comparison(_Value):
    """A candidate and a champion, image by image. Accuracies are shares of 0–1."""

    images: int
    candidate_accuracy: float
    champion_accuracy: float
    difference: float
    """Candidate less champion."""
    confidence: float
    """Of the interval."""
    interval: tuple[float, float]
    """Of the difference: paired bootstrap, percentiles."""
    only_candidate_right: int
    """Images."""
    only_champion_right: int
    p_value: float
    """Of McNemar's exact test, two-sided: how often equally good models differ as much, or more."""
    classes: tuple[ClassComparison, ...]
    candidate_calibration_error: float
    """Expected calibration error, 0–1."""
    champion_calibration_error: float
    candidate_brier: float
    """Brier score, 0–2."""
    champion_brier: float


def compare(
    candidate: Probabilities,
    champion: Probabilities,
    labels: NDArray[np.int64],
    classes: tuple[str, ...],
    *,
    confidence: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """From the probabilities (N, classes) that both models give to the same images, and their labels (N,).

    The same arguments give the same result. Raises `ValueError` if the shapes do not belong together.
    """
    expected = (len(labels), len(classes))
    if not len(labels) or candidate.shape != expected or champion.shape != expected:
        raise ValueError(f"{candidate.shape} and {champion.shape} probabilities of {expected} images and classes")
    right, was_right = (probabilities.argmax(axis=1) == labels for probabilities in (candidate, champion))
    calibration, earlier = calibrate(candidate, labels), calibrate(champion, labels)
    gained, lost = int((right & ~was_right).sum()), int((was_right & ~right).sum())
    return Comparison(
        images=len(labels),
        candidate_accuracy=float(right.mean()),
        champion_accuracy=float(was_right.mean()),
        difference=(gained - lost) / len(labels),
        confidence=confidence,
        interval=_interval(right, was_right, confidence, seed),
        only_candidate_right=gained,
        only_champion_right=lost,
        p_value=mcnemar(gained, lost),
        classes=_by_class(right, was_right, labels, classes),
        candidate_calibration_error=calibration.expected_error,
        champion_calibration_error=earlier.expected_error,
        candidate_brier=calibration.brier,
        champion_brier=earlier.brier,
    )


def mcnemar(gained: int, lost: int) -> float:
    """Exact two-sided p: of the images that one model alone classifies correctly, each has half of them by chance."""
    from scipy.stats import binomtest

    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def p_text(p_value: float) -> str:
    """As a person reads it: no test gives a p of 0, but no float is smaller than about 1e-308 with all its digits."""
    return f"< {SMALLEST_P:g}" if p_value < SMALLEST_P else f"{p_value:.2g}"


def _interval(
    right: NDArray[np.bool_], was_right: NDArray[np.bool_], confidence: float, seed: int
) -> tuple[float, float]:
    from scipy.stats import bootstrap

    if len(right) < 2:
        return -1.0, 1.0  # one image says nothing
    found = bootstrap(
        (right.astype(np.float32), was_right.astype(np.float32)),
        lambda new, old, axis: (new - old).mean(axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=max(1, INDICES_AT_ONCE // len(right)),
        confidence_level=confidence,
        method="percentile",  # BCa is five times as slow, and no better for a mean of so many
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)


def _by_class(
    right: NDArray[np.bool_], was_right: NDArray[np.bool_], labels: NDArray[np.int64], classes: tuple[str, ...]
) -> tuple[ClassComparison, ...]:
    images, new, old, gained, lost = (
        np.bincount(labels[chosen], minlength=len(classes)).tolist()
        for chosen in (slice(None), right, was_right, right & ~was_right, was_right & ~right)
    )
    return tuple(
        ClassComparison(
            name=name,
            images=images[number],
            candidate_recall=new[number] / max(images[number], 1),
            champion_recall=old[number] / max(images[number], 1),
            difference=(gained[number] - lost[number]) / max(images[number], 1),
            p_value=mcnemar(gained[number], lost[number]),
        )
        for number, name in enumerate(classes)
    )
