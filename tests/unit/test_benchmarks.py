"""Comparisons are fair to both sides, and the command explains itself."""

import subprocess
import sys

import numpy as np
import pytest

from benchmarks.measure import Figures, interleaved, rate
from benchmarks.report_recipe import Epoch, summary
from benchmarks.seed_trainings import COMPARISONS, decide_pairs
from benchmarks.simulated_promotions import ACCURACIES, CLASSES, LABELS, simulate
from tests.predictions import labels_of, probabilities_of


def test_candidates_take_turns_and_the_first_round_does_not_count():
    calls: list[str] = []

    def candidate(name: str):
        def measure() -> float:
            calls.append(name)
            return float(len(calls))

        return measure

    figures = interleaved({"a": candidate("a"), "b": candidate("b")}, rounds=2)

    assert calls == ["a", "b"] * 3
    assert figures.rounds == {"a": [3, 5], "b": [4, 6]}


def test_ratio_is_the_median_of_the_rounds_not_the_ratio_of_medians():
    # A slow machine in the second and third round: both candidates suffer alike.
    figures = Figures({"a": [20, 2, 4, 18, 22], "b": [10, 1, 1, 9, 20]})

    assert figures["a"] == 18
    assert figures["b"] == 9
    assert figures.ratio("a", "b") == 2
    assert figures.ratio("a", "b", factor=1.5) == 3


def test_rate_counts_what_is_done_in_a_second(monkeypatch: pytest.MonkeyPatch):
    clock = iter([1.0, 3.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    assert rate(10, lambda: None)() == 5


@pytest.mark.parametrize(
    ("accuracies", "says"),
    [([0.5, 0.8], "not reached in 2 epochs; best 80.00 % after 2,000"), ([0.5, 0.86, 0.9], "after 2,000 images")],
)
def test_summary_names_the_images_seen_to_the_reports_accuracy_or_the_best(accuracies: list[float], says: str):
    curve = [Epoch(n, 1000 * n, 1.0, 1.0, 1.0, accuracy, 100.0) for n, accuracy in enumerate(accuracies, 1)]
    assert says in summary(curve)


def test_simulated_models_have_their_gain_and_find_the_same_images_hard():
    candidate, champion = simulate(np.random.default_rng(0), [0.05] * CLASSES)
    right, was_right = (probabilities.argmax(axis=1) == LABELS for probabilities in (candidate, champion))
    assert ACCURACIES[0] - 0.02 < was_right.mean() < ACCURACIES[1] + 0.02
    assert right.mean() - was_right.mean() == pytest.approx(0.05, abs=0.015)


def test_errors_of_simulated_models_are_as_correlated_as_those_of_trainings_that_differ_by_their_seed():
    random, correlations = np.random.default_rng(0), []
    for _ in range(20):
        right, was_right = (found.argmax(axis=1) == LABELS for found in simulate(random, [0.0] * CLASSES))
        correlations.append(np.corrcoef(right, was_right)[0, 1])
    assert np.mean(correlations) == pytest.approx(0.73, abs=0.015)


def test_each_pair_of_trainings_is_decided_in_both_directions():
    labels = labels_of(200, 2)
    trained = [probabilities_of(labels, 2, range(wrong)) for wrong in (20, 21, 80)]
    counts = [int(line.split(", ")[-1].split()[0]) for line in decide_pairs(trained, labels, ("cat", "dog"))]
    assert counts == [0, COMPARISONS // 2, COMPARISONS // 2]


def test_help_lists_the_benchmarks():
    told = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--help"], capture_output=True, text=True, check=True, timeout=30
    )
    assert "--rounds" in told.stdout
    for name in (
        "training_speed",
        "augmentation",
        "recording",
        "inference",
        "evaluation_cost",
        "head_features",
        "pretrained_speed",
        "simulated_promotions",
        "models_page",
        "line_increment",
        "orchestration",
        "gpu",
    ):
        assert name in told.stdout
