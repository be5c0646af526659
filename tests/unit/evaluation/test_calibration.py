"""Reliability, expected calibration error, Brier score, and probabilities as they are stored."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from sklearn.metrics import brier_score_loss

from cifar_tasks.evaluation.calibration import BINS, calibrate, to_float16


def two_classes(confidence):
    return np.array([[c, 1 - c] for c in confidence])


def test_the_expected_error_is_the_gap_of_confidence_and_accuracy_weighted_by_images():
    # 0.9 and right three times of four; 0.6 and wrong both times.
    probabilities, labels = two_classes([0.9] * 4 + [0.6] * 2), np.array([0, 0, 0, 1, 1, 1])
    result = calibrate(probabilities, labels)
    assert result.expected_error == pytest.approx((4 * 0.15 + 2 * 0.6) / 6)
    filled = [(b.images, round(b.confidence, 6), b.accuracy) for b in result.bins if b.images]
    assert filled == [(2, 0.6, 0.0), (4, 0.9, 0.75)]
    assert len(result.bins) == BINS


def test_perfect_certainty_is_in_the_last_bin_and_has_no_error():
    result = calibrate(np.eye(3)[[0, 1, 2, 2]], np.array([0, 1, 2, 2]))
    assert (result.expected_error, result.brier, result.bins[-1].images) == (0, 0, 4)


def test_certain_mistakes_have_the_worst_scores():
    result = calibrate(np.eye(2)[[0, 1]], np.array([1, 0]))
    assert (result.expected_error, result.brier) == (1, 2)


def test_the_brier_score_is_scikit_learn_s():
    random = np.random.default_rng(0)
    probabilities, labels = random.dirichlet(np.ones(5), 200), random.integers(0, 5, 200)
    expected = brier_score_loss(labels, probabilities, labels=range(5))
    assert calibrate(probabilities, labels).brier == pytest.approx(expected, rel=1e-5)


def test_float16_keeps_the_predicted_class_of_every_image():
    random = np.random.default_rng(1)
    logits = random.normal(scale=2, size=(5000, 20)).astype(np.float32)
    first, second = logits.argsort(axis=1)[:, -2:].T
    rows = np.arange(5000)
    logits[rows, first] = logits[rows, second] + np.where(first < second, -1e-5, 1e-5).astype(np.float32)
    stored = to_float16(logits)
    assert stored.dtype == np.float16
    assert (stored.argmax(axis=1) == logits.argmax(axis=1)).all()
    assert np.abs(stored.astype(np.float64).sum(axis=1) - 1).max() < 0.005


def test_large_logits_and_many_classes_give_finite_probabilities():
    logits = np.zeros((3, 2000), np.float32)
    logits[0, 7], logits[1, 1999], logits[2] = 1e4, 1e-3, -1e4
    stored = to_float16(logits)
    assert np.isfinite(stored).all()
    assert stored.argmax(axis=1).tolist() == [7, 1999, 0]


def test_scores_of_stored_probabilities_are_those_of_the_exact_ones():
    random = np.random.default_rng(2)
    logits, labels = random.normal(scale=3, size=(1000, 10)).astype(np.float32), random.integers(0, 10, 1000)
    exact = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    stored, expected = calibrate(to_float16(logits), labels), calibrate(exact, labels)
    assert stored.brier == pytest.approx(expected.brier, abs=1e-3)
    assert stored.expected_error == pytest.approx(expected.expected_error, abs=5e-3)


LOGITS = arrays(
    np.float32,
    array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=6),
    elements=st.floats(-1e4, 1e4, width=32),
)


@settings(deadline=None)
@given(logits=LOGITS, seed=st.integers(0, 9))
def test_any_logits_keep_their_predictions_and_have_scores_within_their_bounds(logits, seed):
    stored = to_float16(logits)
    assert (stored.argmax(axis=1) == logits.argmax(axis=1)).all()
    labels = np.random.default_rng(seed).integers(0, logits.shape[1], len(logits))
    result = calibrate(stored, labels)
    assert -0.01 <= result.expected_error <= 1.01
    assert -0.01 <= result.brier <= 2.01
    assert sum(part.images for part in result.bins) == len(labels)
