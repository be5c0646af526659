"""The promotion decision on simulated models, whose true accuracies are known: how often it is right, and how fast.

Two models find the same images hard: each image has a difficulty that both share, and each model adds a part of its
own. `benchmarks.seed_trainings` prints how much the errors of real trainings are correlated.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from scipy.stats import norm

from benchmarks.measure import Row
from cifar_tasks.evaluation.comparison import Comparison, compare
from cifar_tasks.promotion.decision import decide
from cifar_tasks.promotion.evidence import Decision, Scored
from cifar_tasks.promotion.limits import Limits

IMAGES, CLASSES = 10_000, 10
DECISIONS = 20
"""Of each kind, per round."""
SHARED = 0.93
"""Correlation of the difficulties of an image for two models; their errors then have one of 0.73 on average, as those
of trainings that differ by their seed have (`benchmarks.seed_trainings`: 0.72 to 0.74)."""
ACCURACIES = 0.7, 0.93
"""Of the champions: drawn between these."""
LABELS = np.arange(IMAGES) % CLASSES
NAMES = tuple(map(str, range(CLASSES)))

Shares = Sequence[float] | NDArray[np.float64]


@dataclass(frozen=True)
class Truth:
    """A kind of candidate: its true gain in each class, and what the decision should be."""

    what: str
    gains: tuple[float, ...]
    promote: bool
    wanted: float
    """Share of right decisions."""


TRUTHS = (
    Truth("equally good: kept", (0.0,) * CLASSES, False, 0.95),
    Truth("1.5 points better: promoted", (0.015,) * CLASSES, True, 0.9),
    Truth("3 points better, 8 worse in a class: kept", (-0.08, *(0.38 / 9,) * 9), False, 0.95),
)


def measure(rounds: int) -> list[Row]:
    """A row for each kind of candidate, and one for the time of a decision."""
    random, rows, seconds = np.random.default_rng(0), [], []
    for truth in TRUTHS:
        right = 0
        for _ in track(range(DECISIONS * rounds), truth.what, console=Console(stderr=True)):
            candidate, champion = simulate(random, truth.gains)
            began = time.perf_counter()
            right += decision_on(candidate, champion, LABELS, NAMES).promote == truth.promote
            seconds.append(time.perf_counter() - began)
        total = DECISIONS * rounds
        rows.append(Row(truth.what, {"right": f"{right} of {total} decisions"}, right / total, truth.wanted))
    slowest = float(np.quantile(seconds, 0.9))
    return [*rows, Row("a decision within 2 s", {"nine of ten": f"at most {slowest:.2f} s"}, 2 / slowest, 1)]


def simulate(random: np.random.Generator, gains: Shares) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
    """Probabilities of a candidate and a champion; `gains` are the candidate's, by class."""
    accuracy = random.uniform(*ACCURACIES)
    shared = random.standard_normal(IMAGES)
    candidate, champion = (
        _answers(random, shared, np.full(CLASSES, accuracy) + gain) for gain in (np.asarray(gains), np.zeros(CLASSES))
    )
    return candidate, champion


def _answers(
    random: np.random.Generator, shared: NDArray[np.float64], accuracies: NDArray[np.float64]
) -> NDArray[np.float16]:
    """Wrong where the difficulty is above what the model masters; less confident the nearer to that."""
    own = random.standard_normal(IMAGES)
    margin = norm.ppf(accuracies)[LABELS] - (np.sqrt(SHARED) * shared + np.sqrt(1 - SHARED) * own)
    predicted = np.where(margin > 0, LABELS, (LABELS + random.integers(1, CLASSES, IMAGES)) % CLASSES)
    confidence = np.clip(1 / (1 + np.exp(-1.5 * np.abs(margin))), 0.2, 0.99)
    probabilities = np.repeat(((1 - confidence) / (CLASSES - 1))[:, None], CLASSES, axis=1)
    probabilities[np.arange(IMAGES), predicted] = confidence
    return probabilities.astype(np.float16)


def decision_on(
    candidate: NDArray[np.float16],
    champion: NDArray[np.float16],
    labels: NDArray[np.int64],
    names: tuple[str, ...],
    limits: Limits | None = None,
) -> Decision:
    """By the default limits."""
    limits = limits or Limits()
    comparison = compare(candidate, champion, labels, names, confidence=limits.confidence)
    return decide(*_scored(comparison, names), comparison, limits, "auto")


def _scored(comparison: Comparison, names: tuple[str, ...]) -> tuple[Scored, Scored]:
    def scored(version: int, accuracy: float, error: float) -> Scored:
        return Scored(
            version=version,
            model="cnn",
            accuracy=accuracy,
            calibration_error=error,
            latency_ms=None,
            size_mb=None,
            classes=names,
            placeholder=False,
            test_set="simulated",
        )

    return (
        scored(2, comparison.candidate_accuracy, comparison.candidate_calibration_error),
        scored(1, comparison.champion_accuracy, comparison.champion_calibration_error),
    )
