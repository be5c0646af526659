"""Charts and tables of the page "Models" say what the stored evaluations say, which is counted here in another way."""

import json
import re
from html import unescape
from typing import Any

import numpy as np
import pytest
from models_page import plotly_figures
from sklearn.metrics import confusion_matrix, recall_score

from cifar_tasks.evaluation.metrics import ClassScores
from cifar_tasks.settings import Settings
from cifar_tasks.storage.s3 import S3Store
from cifar_tasks.tracking.evaluations import StoredEvaluation, read_labels, read_probabilities
from tests.models_page_app import read, stored_evaluation

CLASSES = ["ant", "bee"]
NAMES = "version 1", "version 2"


@pytest.fixture
def html(page, registered) -> str:
    return read(page, view="compare", registered_model=registered.name, a=1, b=2)


@pytest.fixture
def charts(html: str) -> dict[str, list[dict[str, Any]]]:
    """Title → data."""
    found = [json.loads(unescape(chart)) for chart in re.findall(r'data-chart="([^"]*)"', html)]
    return {chart["layout"]["title"]["text"]: chart["data"] for chart in found}


@pytest.fixture
def evaluations(registered, client) -> list[StoredEvaluation]:
    return [stored_evaluation(client, registered.name, version) for version in (1, 2)]


@pytest.fixture
def answers(evaluations) -> list[tuple[np.ndarray, np.ndarray]]:
    """Labels and probabilities of both."""
    store = S3Store(Settings().bucket)
    return [(read_labels(store, each), read_probabilities(store, each).astype(float)) for each in evaluations]


def test_the_confusion_matrices_and_their_difference_count_the_stored_answers(charts, answers):
    first, second = (confusion_matrix(labels, given.argmax(axis=1), labels=[0, 1]) for labels, given in answers)
    assert (first != second).any()
    difference = "Difference of the two"
    for title, counts in ((NAMES[0], first), (NAMES[1], second), (difference, first - second)):
        (heat,) = charts[title]
        assert heat["z"] == counts.tolist(), title
        assert (heat["x"], heat["y"]) == (CLASSES, CLASSES)


def test_recall_and_its_difference_per_class_are_those_of_the_stored_answers(charts, answers, html):
    first, second = (recall_score(labels, given.argmax(axis=1), average=None) for labels, given in answers)
    for bars, name, expected in zip(charts["Recall per class"], NAMES, (first, second), strict=True):
        assert (bars["name"], bars["x"]) == (name, CLASSES)
        assert bars["y"] == pytest.approx(expected)
    for name, one, other in zip(CLASSES, first, second, strict=True):
        row = re.search(rf">{name}</a></th>(.*)</tr>", html)[1]
        cells = re.findall(r">([-+]?[\d.]+)%?<", row)
        assert cells[:4] == ["10", f"{100 * one:.2f}", f"{100 * other:.2f}", f"{100 * (one - other):+.2f}"]


def test_reliability_is_the_share_of_right_answers_at_each_confidence(charts, answers):
    diagonal, *lines = charts["Reliability"]
    assert diagonal["x"] == diagonal["y"] == [0, 1]
    for line, name, (labels, given) in zip(lines, NAMES, answers, strict=True):
        confidence, right = given.max(axis=1), given.argmax(axis=1) == labels
        bins = [np.floor(confidence * 15).clip(max=14) == number for number in range(15)]
        filled = [each for each in bins if each.any()]
        assert line["name"] == name
        assert line["x"] == pytest.approx([confidence[each].mean() for each in filled])
        assert line["y"] == pytest.approx([right[each].mean() for each in filled])


def test_accuracy_on_altered_images_is_the_stored_one(charts, evaluations):
    for bars, name, evaluation in zip(charts["Accuracy on altered images"], NAMES, evaluations, strict=True):
        assert bars["name"] == name
        assert dict(zip(bars["x"], bars["y"], strict=True)) == evaluation.robustness.accuracies


def test_a_class_that_looks_like_a_tag_of_plotly_is_shown_as_it_is():
    assert recall_bars("<b>&lt;")["x"] == ["&lt;b&gt;&amp;lt;"], "Plotly shows the entities as characters"


def test_classes_with_equal_labels_have_bars_of_their_own_and_those_without_test_images_none():
    first, second = (f"the same beginning {each} and the same end" for each in "ab")
    short = "the same beginn…d the same end"
    assert recall_bars(first, "ant", second)["x"] == [f"{short} (1)", "ant", f"{short} (3)"]
    assert recall_bars("ant", "bee", untested="bee")["x"] == ["ant"]


def recall_bars(*classes: str, untested: str = "") -> dict:
    scores = [
        ClassScores(name=name, images=0 if name == untested else 9, recall=0.5, precision=0.5, f1=0.5)
        for name in classes
    ]
    return json.loads(plotly_figures.recalls((scores, scores), NAMES))["data"][0]
