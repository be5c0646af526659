"""The figure of a decision: what is drawn, for classes of any number and name."""

import io
import warnings

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from cifar_tasks.evaluation.comparison import compare
from cifar_tasks.evaluation.scores import Scores
from cifar_tasks.promotion.comparison_figure import BETTER, WORSE, comparison_figure
from cifar_tasks.promotion.comparison_tables import CLASSES_SHOWN
from cifar_tasks.promotion.decision import decide
from cifar_tasks.promotion.evidence import Decision
from cifar_tasks.promotion.limits import Limits
from tests.names import NASTY_NAMES
from tests.predictions import labels_of, probabilities_of, scores_of
from tests.unit.promotion.test_decision import CANDIDATE, CHAMPION, changed

NAMES = ("ant", "bee", "cat", "dog")
LIMITS = Limits(min_gain=0.01, class_margin=0.05, min_accuracy=0.6, confidence=0.9)


def compared(names: tuple[str, ...] = NAMES, images: int = 800) -> tuple[Decision, Scores, Scores]:
    """The candidate is much worse in the first class, a little in the second one, and better in all others."""
    labels = labels_of(images, len(names))
    rank = np.arange(images) // len(names) / (images / len(names))  # of an image in its class, 0–1
    wrong = rank < np.select([labels == 0, labels == 1], [0.5, 0.12], 0.1)
    was_wrong = rank < np.select([labels == 0, labels == 1], [0.1, 0.1], 0.4)
    found = [probabilities_of(labels, len(names), np.flatnonzero(each)) for each in (wrong, was_wrong)]
    candidate, champion = (changed(version, classes=names) for version in (CANDIDATE, CHAMPION))
    decision = decide(candidate, champion, compare(*found, labels, names, confidence=0.9), LIMITS, "approve")
    return decision, *(scores_of(each, labels, names) for each in found)


def picture(figure: Figure) -> Image.Image:
    """A warning, as of a missing glyph, is an error."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.savefig(buffer, dpi=100)
    return Image.open(buffer)


def rows(axes: Axes) -> list[str]:
    return [label.get_text() for label in axes.get_yticklabels()]


def bars(axes: Axes) -> dict[str, tuple[float, str]]:
    return {
        name: (round(bar.get_width(), 6), to_hex(bar.get_facecolor()))
        for name, bar in zip(rows(axes), axes.patches, strict=True)
    }


def intervals(axes: Axes) -> list[tuple[float, float]]:
    return [tuple(line.get_xdata()) for line in axes.lines if len(line.get_xdata()) == 2 and not is_vertical(line)]


def is_vertical(line) -> bool:
    return line.get_xdata()[0] == line.get_xdata()[-1]


def limits(axes: Axes) -> list[float]:
    return [float(line.get_xdata()[0]) for line in axes.lines if line.get_linestyle() == "--"]


def points(axes: Axes) -> list[float]:
    return [float(line.get_xdata()[0]) for line in axes.lines if line.get_marker() == "o"]


def test_both_accuracies_have_their_value_an_interval_around_it_and_the_minimum():
    decision, candidate, champion = compared()
    axes = comparison_figure(decision, candidate, champion).axes[0]
    assert rows(axes) == ["version 4", "version 3"]
    assert points(axes) == [100 * candidate.accuracy, 100 * champion.accuracy]
    assert [low < value < high for (low, high), value in zip(intervals(axes), points(axes), strict=True)] == [True] * 2
    assert limits(axes) == [60]
    assert "90 % interval" in axes.get_title("left")


def test_the_difference_has_the_interval_of_the_decision_beside_zero_and_the_minimum_gain():
    decision, *scores = compared()
    axes = comparison_figure(decision, *scores).axes[1]
    assert points(axes) == [100 * decision.comparison.difference]
    assert intervals(axes) == [tuple(100 * bound for bound in decision.comparison.interval)]
    assert limits(axes) == [1]
    assert [line.get_xdata()[0] for line in axes.lines if is_vertical(line)].count(0) == 1


def test_the_classes_that_differ_most_stand_first_with_the_margin_of_a_class():
    decision, *scores = compared()
    axes = comparison_figure(decision, *scores).axes[2]
    assert bars(axes) == {"ant": (-40, WORSE), "cat": (30, BETTER), "dog": (30, BETTER), "bee": (-2, WORSE)}
    assert limits(axes) == [-5]
    top, bottom = axes.get_ylim()[::-1]
    assert top < 0 < 3 < bottom, "the first one is above"


def test_a_first_version_stands_alone_with_its_recalls_the_lowest_first():
    _, scores, _ = compared()
    untested = scores.classes[0].model_copy(update={"name": "eel", "images": 0, "recall": 0.0})
    scores = scores.model_copy(update={"classes": (*scores.classes, untested)})
    decision = decide(changed(CANDIDATE, classes=NAMES), None, None, LIMITS, "approve")
    accuracy, recalls = comparison_figure(decision, scores).axes
    assert rows(accuracy) == ["version 4"]
    assert [(name, width) for name, (width, _) in bars(recalls).items()] == [
        ("ant", 50),
        ("bee", 88),
        ("cat", 90),
        ("dog", 90),
    ]


@pytest.mark.parametrize("count", [2, 10, 1000])
def test_the_figure_is_300_pixels_wide_in_airflow_and_has_at_most_20_classes(count):
    decision, *scores = compared(tuple(f"class {number}" for number in range(count)), 2 * count)
    figure = comparison_figure(decision, *scores)
    width, height = picture(figure).size
    assert (width, height <= 700) == (300, True)
    assert len(rows(figure.axes[-1])) == min(count, CLASSES_SHOWN)


@pytest.mark.parametrize("start", range(0, len(NASTY_NAMES), CLASSES_SHOWN))
def test_names_of_any_kind_are_drawn_inside_of_the_figure(start):
    decision, *scores = compared(NASTY_NAMES[start : start + CLASSES_SHOWN])
    figure = comparison_figure(decision, *scores)
    picture(figure)
    for axes in figure.axes:
        for text in [*axes.get_yticklabels(), axes.title, axes._left_title]:
            box = text.get_window_extent()
            assert 0 <= box.x0 <= box.x1 <= figure.bbox.x1, text.get_text()
            assert box.y1 <= figure.bbox.y1, text.get_text()
