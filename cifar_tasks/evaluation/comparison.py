"""Two models on the same test images: how their accuracies differ, and how sure that is."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from cifar_tasks.evaluation.calibration import BINS, PerImage, per_image, summarize

SMALLEST_P = 1e-300
"""That is shown."""
RESAMPLES = 2_000
"""Of the bootstrap: the bounds of the interval vary by a fiftieth of its width from seed to seed."""
INDICES_AT_ONCE = 1_000_000
"""Of the bootstrap, in memory."""

Probabilities = NDArray[np.floating[Any]]
Interval = tuple[float, float]


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
    interval: Interval | None = None
    """Of the difference; none in decisions from before it was computed."""


class Comparison(_Value):
    """A candidate and a champion, image by image. Accuracies are shares of 0–1."""

    images: int
    candidate_accuracy: float
    champion_accuracy: float
    difference: float
    """Candidate less champion."""
    confidence: float
    """Of the intervals."""
    interval: Interval
    """Of the difference: paired bootstrap, percentiles; like the others."""
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
    calibration_interval: Interval | None = None
    """Of the difference; none in decisions from before it was computed."""
    brier_interval: Interval | None = None


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
    new, old = per_image(candidate, labels), per_image(champion, labels)
    calibration, earlier = summarize(new), summarize(old)
    gained, lost = int((new.right & ~old.right).sum()), int((old.right & ~new.right).sum())
    accuracy, brier, error = _intervals(new, old, confidence, seed)
    return Comparison(
        images=len(labels),
        candidate_accuracy=float(new.right.mean()),
        champion_accuracy=float(old.right.mean()),
        difference=(gained - lost) / len(labels),
        confidence=confidence,
        interval=accuracy,
        only_candidate_right=gained,
        only_champion_right=lost,
        p_value=mcnemar(gained, lost),
        classes=_by_class(new.right, old.right, labels, classes, confidence, seed),
        candidate_calibration_error=calibration.expected_error,
        champion_calibration_error=earlier.expected_error,
        candidate_brier=calibration.brier,
        champion_brier=earlier.brier,
        calibration_interval=error,
        brier_interval=brier,
    )


def mcnemar(gained: int, lost: int) -> float:
    """Exact two-sided p: of the images that one model alone classifies correctly, each has half of them by chance."""
    from scipy.stats import binomtest

    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def p_text(p_value: float) -> str:
    """As a person reads it: no test gives a p of 0, but no float is smaller than about 1e-308 with all its digits."""
    return f"< {SMALLEST_P:g}" if p_value < SMALLEST_P else f"{p_value:.2g}"


def _intervals(new: PerImage, old: PerImage, confidence: float, seed: int) -> tuple[Interval, Interval, Interval]:
    """Of the differences in accuracy, Brier score and calibration error, all from the same resamples of the images."""
    from scipy.stats import bootstrap

    every = np.arange(len(new.right))
    if len(every) < 2:
        return (-1.0, 1.0), (-2.0, 2.0), (-1.0, 1.0)  # one image says nothing
    # What each image adds: to the first two differences, and in its bin to the calibration error of each model.
    added = np.zeros((len(every), 2 + 2 * BINS), np.float32)
    added[:, 0] = new.right.astype(np.float32) - old.right
    added[:, 1] = new.squares - old.squares
    added[every, 2 + new.bin] = new.confidence - new.right
    added[every, 2 + BINS + old.bin] = old.confidence - old.right

    def differences(chosen: NDArray[np.int64], axis: int) -> NDArray[np.float32]:
        """(3, resamples) of the images that are chosen by their numbers (resamples, N)."""
        places = chosen + len(every) * np.arange(len(chosen))[:, None]
        times = np.bincount(places.ravel(), minlength=chosen.size).reshape(chosen.shape).astype(np.float32)
        means = times @ added / np.float32(len(every))
        errors = np.abs(means[:, 2:]).reshape(-1, 2, BINS).sum(axis=2)
        return np.stack([means[:, 0], means[:, 1], errors[:, 0] - errors[:, 1]])

    found = bootstrap(
        (every,),
        differences,
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=max(1, INDICES_AT_ONCE // len(every)),
        confidence_level=confidence,
        method="percentile",  # BCa is five times as slow, and no better for a mean of so many
        rng=np.random.default_rng(seed),
    ).confidence_interval
    accuracy, brier, error = zip(found.low.tolist(), found.high.tolist(), strict=True)
    return accuracy, brier, error


def _by_class(
    right: NDArray[np.bool_],
    was_right: NDArray[np.bool_],
    labels: NDArray[np.int64],
    classes: tuple[str, ...],
    confidence: float,
    seed: int,
) -> tuple[ClassComparison, ...]:
    images, new, old, gained, lost = (
        np.bincount(labels[chosen], minlength=len(classes))
        for chosen in (slice(None), right, was_right, right & ~was_right, was_right & ~right)
    )
    filled = np.maximum(images, 1)
    # The same bootstrap for all classes at once: in a resample of a class the numbers of images that one model alone
    # has right are multinomial.
    shares = np.stack([gained, lost, filled - gained - lost], axis=1) / filled[:, None]
    drawn = np.random.default_rng(seed).multinomial(images, shares, (RESAMPLES, len(classes)))
    differences = (drawn[..., 0] - drawn[..., 1]) / filled
    low, high = np.quantile(differences, ((1 - confidence) / 2, (1 + confidence) / 2), axis=0).tolist()
    return tuple(
        ClassComparison(
            name=name,
            images=int(images[number]),
            candidate_recall=float(new[number] / filled[number]),
            champion_recall=float(old[number] / filled[number]),
            difference=float((gained[number] - lost[number]) / filled[number]),
            p_value=mcnemar(int(gained[number]), int(lost[number])),
            interval=(low[number], high[number]),
        )
        for number, name in enumerate(classes)
    )
