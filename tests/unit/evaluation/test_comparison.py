"""What two models' probabilities on the same images say about their difference."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cifar_tasks.evaluation.calibration import calibrate
from cifar_tasks.evaluation.comparison import Comparison, compare, mcnemar, p_text
from tests.predictions import labels_of, probabilities_of

CLASSES = ("cat", "dog")


def compared(images: int, wrong: list[int], champion_wrong: list[int], **options) -> Comparison:
    labels = labels_of(images, 2)
    candidate, champion = (probabilities_of(labels, 2, those) for those in (wrong, champion_wrong))
    return compare(candidate, champion, labels, CLASSES, **options)


def test_accuracies_and_the_images_that_one_model_alone_has_right_are_counted():
    found = compared(10, [0], [1, 3, 5])
    assert (found.images, found.candidate_accuracy, found.champion_accuracy) == (10, 0.9, 0.7)
    assert found.difference == pytest.approx(0.2)
    assert (found.only_candidate_right, found.only_champion_right) == (3, 1)


def test_images_that_both_models_have_wrong_do_not_count_as_a_difference():
    found = compared(10, [0, 1, 2], [0, 1, 2])
    assert (found.only_candidate_right, found.only_champion_right, found.p_value) == (0, 0, 1)
    assert found.interval == (0, 0)


def test_the_exact_p_is_that_of_the_binomial_distribution():
    assert mcnemar(10, 2) == pytest.approx(2 * (1 + 12 + 66) / 2**12)
    assert mcnemar(2, 10) == mcnemar(10, 2)
    assert mcnemar(0, 0) == 1


def test_no_p_is_shown_as_zero():
    assert mcnemar(5000, 0) == 0
    assert [p_text(p) for p in (mcnemar(5000, 0), 1e-301, 1e-300, 1.234e-30, 0.05, 1.0)] == [
        *("< 1e-300", "< 1e-300", "1e-300", "1.2e-30", "0.05", "1")
    ]


def test_the_interval_holds_the_difference_and_is_wider_with_more_confidence():
    wrong, champion_wrong = list(range(100)), list(range(50, 200))
    narrow, wide = (compared(1000, wrong, champion_wrong, confidence=c) for c in (0.8, 0.99))
    assert wide.interval[0] < narrow.interval[0] < narrow.difference < narrow.interval[1] < wide.interval[1]
    # Pairs: of the 1,000 images 100 are right in the candidate alone, 50 in the champion alone.
    deviation = np.sqrt(0.1 + 0.05 - 0.05**2) / np.sqrt(1000)
    assert wide.interval == pytest.approx((0.05 - 2.576 * deviation, 0.05 + 2.576 * deviation), abs=0.004)


def test_the_interval_of_a_class_is_that_of_its_images():
    cat, dog = compared(2000, list(range(0, 200, 2)), list(range(100, 400, 2))).classes
    # Of the 1,000 cats 100 are right in the candidate alone, 50 in the champion alone.
    deviation = np.sqrt(0.1 + 0.05 - 0.05**2) / np.sqrt(1000)
    assert cat.difference == pytest.approx(0.05)
    assert cat.interval == pytest.approx((0.05 - 1.96 * deviation, 0.05 + 1.96 * deviation), abs=0.003)
    assert dog.interval == (0, 0)


def test_brier_score_and_calibration_error_have_the_intervals_of_their_paired_differences():
    random = np.random.default_rng(3)
    labels = labels_of(400, 2)
    candidate, champion = (random.dirichlet(np.ones(2), 400) for _ in range(2))
    found = compare(candidate, champion, labels, CLASSES)
    briers, errors = [], []
    for _ in range(1000):
        chosen = random.integers(0, 400, 400)
        new, old = (calibrate(p[chosen], labels[chosen]) for p in (candidate, champion))
        briers.append(new.brier - old.brier)
        errors.append(new.expected_error - old.expected_error)
    assert found.brier_interval == pytest.approx(np.quantile(briers, (0.025, 0.975)), abs=0.02)
    assert found.calibration_interval == pytest.approx(np.quantile(errors, (0.025, 0.975)), abs=0.01)
    wider = compare(candidate, champion, labels, CLASSES, confidence=0.99)
    assert wider.calibration_interval[0] < found.calibration_interval[0]


def test_equal_arguments_give_the_equal_result_and_another_seed_another_interval():
    wrong, champion_wrong = list(range(100)), list(range(50, 200))
    first, second = (compared(1000, wrong, champion_wrong) for _ in range(2))
    assert first == second
    assert compared(1000, wrong, champion_wrong, seed=1).interval != first.interval


def test_each_class_has_its_own_recalls_and_exact_p():
    cat, dog = compared(100, list(range(0, 40, 2)), [1]).classes
    assert (cat.name, cat.images, cat.candidate_recall, cat.champion_recall) == ("cat", 50, 0.6, 1.0)
    assert cat.difference == pytest.approx(-0.4)
    assert cat.p_value == mcnemar(0, 20)
    assert (dog.candidate_recall, dog.champion_recall, dog.p_value) == (1.0, 0.98, 1.0)


def test_a_class_without_test_images_differs_in_nothing():
    labels = labels_of(10, 2)
    probabilities = probabilities_of(labels, 3, [0])
    fish = compare(probabilities, probabilities, labels, (*CLASSES, "fish")).classes[2]
    assert (fish.images, fish.candidate_recall, fish.champion_recall, fish.difference, fish.p_value) == (0, 0, 0, 0, 1)
    assert fish.interval == (0, 0)


def test_calibration_is_that_of_each_model():
    labels = labels_of(100, 2)
    candidate, champion = probabilities_of(labels, 2, [0], 0.7), probabilities_of(labels, 2, [0], 0.99)
    found = compare(candidate, champion, labels, CLASSES)
    for probabilities, error, brier in (
        (candidate, found.candidate_calibration_error, found.candidate_brier),
        (champion, found.champion_calibration_error, found.champion_brier),
    ):
        expected = calibrate(probabilities, labels)
        assert (error, brier) == (expected.expected_error, expected.brier)


def test_one_image_says_nothing():
    found = compared(1, [], [0])
    assert (found.interval, found.brier_interval, found.calibration_interval) == ((-1, 1), (-2, 2), (-1, 1))
    assert found.p_value == 1
    assert compared(2, [], []).interval == (0, 0)


@pytest.mark.parametrize(
    ("candidate", "champion", "labels"),
    [((4, 2), (5, 2), 4), ((4, 3), (4, 2), 4), ((4, 2), (4, 2), 5), ((0, 2), (0, 2), 0)],
)
def test_shapes_that_do_not_belong_together_are_refused(candidate, champion, labels):
    with pytest.raises(ValueError, match="images and classes"):
        compare(np.zeros(candidate), np.zeros(champion), np.zeros(labels, np.int64), CLASSES)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=60))
def test_exchanging_the_models_exchanges_all_figures(pairs):
    wrong = [n for n, (first, _) in enumerate(pairs) if first]
    other = [n for n, (_, second) in enumerate(pairs) if second]
    found, exchanged = compared(len(pairs), wrong, other), compared(len(pairs), other, wrong)
    assert exchanged.difference == -found.difference
    assert exchanged.p_value == found.p_value
    assert exchanged.only_candidate_right == found.only_champion_right
    assert exchanged.interval == pytest.approx((-found.interval[1], -found.interval[0]), abs=1e-4)  # float32
    assert [c.difference for c in exchanged.classes] == [-c.difference for c in found.classes]
    low, high = exchanged.brier_interval
    assert found.brier_interval == pytest.approx((-high, -low), abs=1e-4)
    assert found.interval[0] <= found.difference + 1e-6
    assert found.difference - 1e-6 <= found.interval[1]


def test_ten_thousand_images_are_compared_without_torch_in_less_than_two_seconds():
    """In a process of its own, the import of scipy included."""
    program = """
import sys, time
import numpy as np
from cifar_tasks.evaluation.comparison import compare
from tests.predictions import labels_of, probabilities_of
labels = labels_of(10_000, 10)
candidate, champion = (probabilities_of(labels, 10, np.arange(count)) for count in (1500, 1800))
began = time.process_time()
compare(candidate, champion, labels, tuple("abcdefghij"))
print(time.process_time() - began, "torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    seconds, torch = done.stdout.split()
    assert float(seconds) < 2
    assert torch == "False"
