"""How many labels are wrong is estimated from agreement, whatever the quality of the model."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import fisher_exact

from cifar_tasks.data.quality.label_errors import estimate_label_errors, label_quality, out_of_fold


def predictions(labels: np.ndarray, accuracy: float, seed: int, classes: int = 10) -> np.ndarray:
    """Of a model that is right in this share of images."""
    random = np.random.default_rng(seed)
    right = random.random(len(labels)) < accuracy
    predicted = np.where(right, labels, (labels + random.integers(1, classes, len(labels))) % classes)
    return 0.05 + 0.5 * np.eye(classes)[predicted]


@settings(max_examples=30, deadline=None)
@given(accuracy=st.floats(0.4, 1), wrong=st.floats(0, 0.6), seed=st.integers(0, 99))
def test_the_estimate_is_near_the_truth_for_weak_and_strong_models(accuracy, wrong, seed):
    random = np.random.default_rng(seed)
    truth, known = random.integers(0, 10, 4_000), random.integers(0, 10, 4_000)
    flipped = random.random(4_000) < wrong
    labels = np.where(flipped, (truth + random.integers(1, 10, 4_000)) % 10, truth)
    found = estimate_label_errors(
        labels, predictions(truth, accuracy, seed + 1), known, predictions(known, accuracy, seed + 2)
    )
    assert found.share == pytest.approx(1.11 * flipped.mean(), abs=0.12)  # a wrong label is never the right one


def test_a_model_that_guesses_says_nothing():
    labels = np.arange(1_000) % 10
    guessed = predictions(np.roll(labels, 3), 0.1, 0)
    assert estimate_label_errors(labels, guessed, labels, guessed) is None


def test_a_class_that_is_not_in_use_is_left_out():
    known = np.arange(1_000) % 9
    labels = np.full(100, 9)
    assert estimate_label_errors(labels, predictions(labels, 1, 0), known, predictions(known, 1, 1)) is None


def test_other_proportions_of_classes_are_no_label_errors():
    """The model knows class 0 badly, and the delivery is of class 0."""
    known = np.arange(3_000) % 3
    right = predictions(known, 1, 0, 3)
    right[known == 0] = predictions(known[known == 0], 0.5, 1, 3)
    delivered = np.where(np.arange(300) < 240, 0, 1)
    answers = predictions(delivered, 1, 2, 3)
    answers[:240] = predictions(delivered[:240], 0.5, 3, 3)
    found = estimate_label_errors(delivered, answers, known, right)
    assert found.share < 0.15
    assert found.p_value > 0.001


def test_each_image_is_classified_by_a_model_that_has_not_learnt_it():
    """Random labels can be learnt by heart only."""
    random = np.random.default_rng(0)
    embeddings, labels = random.normal(size=(200, 50)).astype(np.float32), random.integers(0, 2, 200)
    found = out_of_fold(embeddings, labels, 2)
    assert (found.argmax(1) == labels).mean() < 0.65


@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [0, 0, 0, 1], [0, 1, 2, 3]])
def test_without_two_classes_of_two_images_nothing_is_learnt(labels):
    assert out_of_fold(np.eye(4, dtype=np.float32), np.array(labels), 2) is None


def test_an_image_that_is_alone_in_its_class_does_not_count():
    labels = np.array([0, 1] * 30 + [2])
    embeddings = np.eye(3, dtype=np.float32)[labels] + np.random.default_rng(0).normal(0, 0.1, (61, 3))
    found = out_of_fold(embeddings.astype(np.float32), labels, 3)
    assert (found.argmax(1) == labels)[:60].all()
    assert not found[60].any()
    errors = estimate_label_errors(labels[40:], found[40:], labels[:40], found[:40])
    assert errors.agreement == errors.reference_agreement == 1
    assert estimate_label_errors(labels[:40], found[:40], labels[40:], found[40:]).reference_agreement == 1


def test_few_images_with_most_of_the_weight_do_not_make_the_comparison_certain():
    """5,000 images in use, and a delivery of a class of which 10 are known: 5 right ones are no certain 50 %."""
    known = np.repeat([0, 1, 2], [2_495, 2_495, 10])
    right = predictions(known, 1, 0, 3)
    right[-10:] = 0.05 + 0.5 * np.eye(3)[[2] * 9 + [0]]
    delivered = np.full(200, 2)
    answers = 0.05 + 0.5 * np.eye(3)[np.where(np.arange(200) < 140, 2, 1)]
    found = estimate_label_errors(delivered, answers, known, right)
    assert (found.agreement, found.reference_agreement) == (0.7, pytest.approx(0.9))
    assert found.p_value == pytest.approx(fisher_exact([[140, 60], [9, 1]], alternative="less").pvalue)
    assert found.p_value > 0.1


def test_a_class_without_images_has_no_probability():
    embeddings = np.repeat(np.eye(2, dtype=np.float32), 10, axis=0)
    found = out_of_fold(embeddings, np.repeat([0, 2], 10), 3)
    assert found.shape == (20, 3)
    assert not found[:, 1].any()
    assert np.argsort(label_quality(np.repeat([0, 2], 10), found)).shape == (20,)
