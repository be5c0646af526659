"""Figures that Plotly draws in the browser: data and layout as its documentation describes them, without its Python."""

import json
from collections import Counter
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cifar_tasks.evaluation.calibration import Calibration
from cifar_tasks.evaluation.metrics import ClassScores
from cifar_tasks.evaluation.names import printable, shortened

FIRST, SECOND = "#4c72b0", "#dd8452"
"""Version A and version B."""
MAX_CELLS = 40_000
"""Of a matrix: with more than 200 classes it is left out."""


def _figure(data: list[dict[str, Any]], title: str, **layout: Any) -> str:
    common: dict[str, Any] = {"title": {"text": title}, "margin": {"l": 60, "r": 20, "t": 40, "b": 90}}
    common["legend"] = {"orientation": "h", "y": -0.25}
    return json.dumps({"data": data, "layout": {**common, "height": 360, **layout}})


def _labels(classes: Sequence[str]) -> list[str]:
    """Plotly reads some tags in a text, such as `<b>` and `<a href>`, and draws equal labels in one place."""
    labels = [escape(shortened(printable(name), 30), quote=False) for name in classes]
    times = Counter(labels)
    return [f"{label} ({number})" if times[label] > 1 else label for number, label in enumerate(labels, 1)]


def recalls(models: tuple[Sequence[ClassScores], Sequence[ClassScores]], names: tuple[str, str]) -> str:
    """Bars per class that has test images."""
    labels, bars = _labels([each.name for each in models[0]]), []
    for name, classes, colour in zip(names, models, (FIRST, SECOND), strict=True):
        tested = {label: each.recall for label, each in zip(labels, classes, strict=True) if each.images}
        bar = {"type": "bar", "name": name, "x": list(tested), "y": list(tested.values()), "marker": {"color": colour}}
        bars.append(bar)
    return _figure(bars, "Recall per class", barmode="group", yaxis={"tickformat": ".0%"}, xaxis={"type": "category"})


def reliability(calibrations: Sequence[Calibration], names: tuple[str, str]) -> str:
    """Accuracy over confidence; on the diagonal a model is as right as it says."""
    lines: list[dict[str, Any]] = [
        {"x": [0, 1], "y": [0, 1], "mode": "lines", "name": "perfect", "line": {"dash": "dot", "color": "#888888"}}
    ]
    for calibration, name, colour in zip(calibrations, names, (FIRST, SECOND), strict=True):
        bins = [each for each in calibration.bins if each.images]
        lines.append(
            {
                "x": [each.confidence for each in bins],
                "y": [each.accuracy for each in bins],
                "mode": "lines+markers",
                "name": name,
                "line": {"color": colour},
            }
        )
    axis = {"range": [0, 1], "tickformat": ".0%"}
    return _figure(
        lines,
        "Reliability",
        xaxis={**axis, "title": {"text": "confidence"}},
        yaxis={**axis, "title": {"text": "accuracy"}},
    )


def matrix(counts: NDArray[np.int64], classes: Sequence[str], title: str, *, difference: bool = False) -> str | None:
    """A confusion matrix, rows true, or the difference of two; none if there are too many classes to see anything."""
    if counts.size > MAX_CELLS:
        return None
    colours: dict[str, Any] = (
        {"colorscale": "RdBu", "zmid": 0} if difference else {"colorscale": "Blues", "reversescale": True}
    )
    heat = {"type": "heatmap", "z": counts.tolist(), "x": _labels(classes), "y": _labels(classes), **colours}
    axes = {"xaxis": {"title": {"text": "predicted"}, "type": "category"}}
    axes["yaxis"] = {"title": {"text": "true"}, "type": "category", "autorange": "reversed"}
    return _figure([heat], title, height=420, **axes)


def curves(found: Sequence[tuple[str, str, Sequence[tuple[int, float]]]]) -> str | None:
    """Learning curves: (name, colour, points of epoch and accuracy) each; none without any."""
    data = [
        {
            "x": [epoch for epoch, _ in points],
            "y": [value for _, value in points],
            "mode": "lines+markers",
            "name": name,
            "line": {"color": colour, "dash": "dot" if "train" in name else "solid"},
        }
        for name, colour, points in found
    ]
    if not data:
        return None
    return _figure(data, "Accuracy over the epochs", xaxis={"title": {"text": "epoch"}}, yaxis={"tickformat": ".0%"})


def robustness(names: tuple[str, str], first: dict[str, float], second: dict[str, float]) -> str:
    """Accuracy on altered copies of the test images."""
    kinds = [kind for kind in first if kind in second]
    bars = [
        {"type": "bar", "name": name, "x": kinds, "y": [values[kind] for kind in kinds], "marker": {"color": colour}}
        for name, values, colour in zip(names, (first, second), (FIRST, SECOND), strict=True)
    ]
    return _figure(bars, "Accuracy on altered images", barmode="group", yaxis={"tickformat": ".0%"})
