"""A decision as one figure for the person who is asked: accuracies, their difference, the classes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cifar_tasks.evaluation.comparison import Comparison
from cifar_tasks.evaluation.figure_style import NARROW, POINTS
from cifar_tasks.evaluation.metrics import accuracy_interval
from cifar_tasks.evaluation.names import figure_text, font_families
from cifar_tasks.evaluation.scores import Scores
from cifar_tasks.promotion.comparison_tables import CLASSES_SHOWN, by_difference
from cifar_tasks.promotion.evidence import Decision

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE = 8
"""Of the text, in points."""
NAME_WIDTH = 0.85
"""Inches, of a name."""
ROW = 0.19
"""Inches, of a version or a class."""
TITLE, TICKS = 0.4, 0.25
"""Inches, above and below a panel."""
BLUE = "#4c72b0"
BETTER, WORSE, LIMIT = "#2a7f3f", "#dd8452", "#c0392b"


def comparison_figure(decision: Decision, candidate: Scores, champion: Scores | None = None) -> "Figure":
    """`champion` are the scores on the same test images, if there are any; without, the candidate stands alone."""
    from matplotlib.figure import Figure

    comparison = decision.comparison
    classes = min(len(candidate.classes), CLASSES_SHOWN)
    rows = [2 if champion else 1, *([1] if comparison else []), classes]
    heights = [ROW * (number + 1) for number in rows]
    figure = Figure(figsize=(NARROW, sum(heights) + len(rows) * (TITLE + TICKS)), facecolor="white")
    accuracies, *differences, by_class = _panels(figure, heights)
    _draw_accuracies(accuracies, decision, [candidate, *([champion] if champion else [])])
    if comparison:
        _draw_difference(differences[0], comparison, decision)
        _draw_class_differences(by_class, comparison, decision)
    else:
        _draw_recalls(by_class, candidate)
    return figure


def _panels(figure: "Figure", heights: Sequence[float]) -> "list[Axes]":
    """One below the other, with room for titles and names."""
    left, right, (width, whole) = NAME_WIDTH + 0.15, 0.15, figure.get_size_inches()
    panels, below = [], whole
    for height in heights:
        below -= TITLE + height
        axes = figure.add_axes((left / width, below / whole, (width - left - right) / width, height / whole))
        below -= TICKS
        axes.tick_params(labelsize=SIZE)
        axes.locator_params(axis="x", nbins=5)
        axes.grid(axis="x", alpha=0.3)
        axes.set_axisbelow(True)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        panels.append(axes)
    return panels


def _draw_accuracies(axes: "Axes", decision: Decision, scores: Sequence[Scores]) -> None:
    confidence = decision.limits.confidence
    for row, found in enumerate(scores):
        images = sum(each.images for each in found.classes)
        low, high = accuracy_interval(round(found.accuracy * images), images, confidence)
        _interval(axes, row, found.accuracy, (low, high))
    if decision.limits.min_accuracy:
        axes.axvline(100 * decision.limits.min_accuracy, color=LIMIT, linestyle="--", linewidth=1)
    versions = [decision.candidate.version, *([decision.champion.version] if decision.champion else [])]
    _label_rows(axes, [f"version {number}" for number in versions[: len(scores)]])
    _title(axes, f"test accuracy in %, {100 * confidence:.4g} % interval")


def _draw_difference(axes: "Axes", comparison: Comparison, decision: Decision) -> None:
    _interval(axes, 0, comparison.difference, comparison.interval)
    axes.axvline(0, color="black", linewidth=1)
    axes.axvline(100 * decision.limits.min_gain, color=LIMIT, linestyle="--", linewidth=1)
    _label_rows(axes, ["difference"])
    _title(axes, f"difference in points, {100 * comparison.confidence:.4g} % interval;\ndashed: minimum gain")


def _draw_class_differences(axes: "Axes", comparison: Comparison, decision: Decision) -> None:
    shown = by_difference(comparison)[:CLASSES_SHOWN]
    colours = [BETTER if each.difference > 0 else WORSE for each in shown]
    axes.barh(range(len(shown)), [100 * each.difference for each in shown], color=colours)
    axes.axvline(0, color="black", linewidth=1)
    axes.axvline(-100 * decision.limits.class_margin, color=LIMIT, linestyle="--", linewidth=1)
    _label_rows(axes, [each.name for each in shown])
    _title(axes, "recall of a class, difference in points;\ndashed: margin of a class")


def _draw_recalls(axes: "Axes", candidate: Scores) -> None:
    tested = [each for each in candidate.classes if each.images]
    shown = sorted(tested, key=lambda each: (each.recall, each.name))[:CLASSES_SHOWN]
    axes.barh(range(len(shown)), [100 * each.recall for each in shown], color=BLUE)
    axes.set_xlim(0, 100)
    _label_rows(axes, [each.name for each in shown])
    _title(axes, "recall of a class in %, the lowest first")


def _interval(axes: "Axes", row: int, value: float, interval: tuple[float, float]) -> None:
    low, high = (100 * bound for bound in interval)
    axes.plot([low, high], [row, row], color=BLUE, linewidth=3, solid_capstyle="butt")
    axes.plot([100 * value], [row], "o", color="black", markersize=5)


def _label_rows(axes: "Axes", names: Sequence[str]) -> None:
    texts = [figure_text(name, NAME_WIDTH * POINTS, SIZE) for name in names]
    fonts: dict[str, Any] = {"family": font_families(texts), "fontsize": SIZE}
    axes.set_yticks(range(len(names)), texts, **fonts)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(names) - 0.4, -0.6)


def _title(axes: "Axes", text: str) -> None:
    left = -axes.get_position().x0 / axes.get_position().width
    axes.set_title(text, fontsize=SIZE, loc="left", x=left + 0.02)
