"""Loss, accuracy, confusion matrix and report from logits."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cifar_tasks.evaluation.metrics import (
    accuracy_interval,
    agrees,
    class_scores,
    confused_pairs,
    confused_positions,
    cross_entropy,
    evaluate,
)
from tests.names import NASTY_NAMES

CLASSES = ("cat", "dog", "ship")


def test_loss_and_accuracy_are_torch_s():
    random = np.random.default_rng(0)
    logits = random.normal(size=(50, 3)).astype(np.float32)
    labels = random.integers(0, 3, 50)
    result = evaluate(logits.argmax(1), labels, CLASSES)
    assert cross_entropy(logits, labels) == pytest.approx(
        F.cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels)).item()
    )
    assert result.accuracy == pytest.approx((logits.argmax(1) == labels).mean())
    assert result.confusion.sum() == 50
    assert np.trace(result.confusion) / 50 == pytest.approx(result.accuracy)


def test_rows_of_the_confusion_matrix_are_true_classes():
    result = evaluate(np.array([1, 1, 2]), np.array([0, 1, 2]), CLASSES)
    assert result.confusion.tolist() == [[0, 1, 0], [0, 1, 0], [0, 0, 1]]


def test_the_report_names_each_class_and_the_averages_even_if_one_is_never_predicted():
    result = evaluate(np.array([0, 0, 1]), np.array([0, 2, 1]), CLASSES)
    assert result.report.keys() == {"classes", "macro avg", "weighted avg"}
    assert tuple(result.report["classes"]) == CLASSES
    assert result.report["classes"]["ship"] == {"precision": 0.0, "recall": 0.0, "f1-score": 0.0, "support": 1.0}
    assert "macro avg" in result.table


def test_averages_are_of_the_classes_that_have_images():
    result = evaluate(np.array([0, 0, 1, 2]), np.array([0, 0, 1, 1]), CLASSES)
    assert result.report["classes"]["ship"]["support"] == 0
    assert {name: result.report["macro avg"][name] for name in ("precision", "recall")} == {
        "precision": 1,
        "recall": 0.75,
    }
    assert "ship" not in result.table
    assert [row.images for row in class_scores(result)] == [2, 2, 0]


def test_classes_with_the_names_of_averages_and_other_names_have_rows_of_their_own():
    labels = np.arange(len(NASTY_NAMES))
    result = evaluate(labels, labels, NASTY_NAMES)
    assert tuple(result.report["classes"]) == NASTY_NAMES
    assert {row["support"] for row in result.report["classes"].values()} == {1.0}
    assert result.accuracy == 1.0
    assert result.report["macro avg"]["support"] == len(labels)
    assert len(result.table.splitlines()) == len(NASTY_NAMES) + 6
    assert max(map(len, result.table.splitlines())) < 90


def test_the_table_of_classes_has_one_row_per_class_in_the_order_of_the_logits():
    rows = class_scores(evaluate(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]), CLASSES))
    assert [(row.name, row.images) for row in rows] == [("cat", 1), ("dog", 3), ("ship", 0)]
    assert (rows[0].recall, rows[0].precision) == (1, 0.5)
    assert (rows[1].recall, rows[1].precision, rows[1].f1) == pytest.approx((2 / 3, 1, 0.8))


def test_confused_pairs_come_by_their_number_and_never_with_what_is_right():
    pairs = confused_pairs(np.array([[9, 1, 2], [3, 9, 0], [1, 0, 9]]), CLASSES, wanted=3)
    found = [(pair.true, pair.predicted, pair.images) for pair in pairs]
    assert found == [("dog", "cat", 3), ("cat", "ship", 2), ("cat", "dog", 1)]
    assert confused_pairs(np.diag([4, 0, 7]), CLASSES) == ()


def test_examples_of_a_pair_are_its_mistakes_the_most_confident_first():
    probabilities = np.array([[0.4, 0.6], [0.1, 0.9], [0.8, 0.2], [0.2, 0.8], [0.3, 0.7]], np.float16)
    labels = np.array([0, 0, 0, 1, 0])
    assert confused_positions(labels, probabilities, 0, 1).tolist() == [1, 4, 0]
    assert confused_positions(labels, probabilities, 0, 1, wanted=1).tolist() == [1]
    assert confused_positions(labels, probabilities, 1, 0).tolist() == []


@pytest.mark.parametrize(
    ("trained", "reloaded", "count", "same"),
    [
        (0.9, 0.9, 5000, True),
        (0.9, 0.9 - 5 / 5000, 5000, True),  # one image in a thousand
        (0.9, 0.9 - 6 / 5000, 5000, False),
        (0.5, 0.25, 4, True),  # one of four images
        (0.9572, 0.80, 5000, False),  # the report's defect
    ],
)
def test_accuracies_agree_up_to_one_image_in_a_thousand(trained, reloaded, count, same):
    assert agrees(trained, reloaded, count) is same


def test_the_interval_of_an_accuracy_is_wilson_s():
    assert accuracy_interval(8_000, 10_000) == pytest.approx((0.79205, 0.80772), abs=1e-5)
    assert accuracy_interval(0, 10)[0] == pytest.approx(0)
    assert accuracy_interval(10, 10)[1] == pytest.approx(1)
    narrow, wide = (accuracy_interval(8_000, 10_000, confidence) for confidence in (0.5, 0.99))
    assert wide[0] < narrow[0] < narrow[1] < wide[1]
