"""The report's figures, drawn without a display: at most 2,000 pixels wide and high, whatever the number of classes."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cifar_tasks.evaluation.figure_style import POINTS, set_text
from cifar_tasks.evaluation.names import figure_text, font_families

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from cifar_tasks.evaluation.calibration import Calibration
    from cifar_tasks.training.state import TrainingState

TRAINING, VALIDATION = "#4c72b0", "#dd8452"
RIGHT, WRONG = "#2a7f3f", "#c0392b"
MAX_LABELS = 50
"""Of an axis: more cannot be read."""


def image_grid(
    images: NDArray[np.uint8],
    true: Sequence[str],
    predicted: Sequence[str] | None = None,
    title: str | None = None,
) -> "Figure":
    """Up to 32 images (N, H, W, 3) with their labels; with predictions, wrong ones stand in red."""
    from matplotlib.figure import Figure

    columns, rows, width = 8, max(1, -(-len(images) // 8)), 1.35
    figure = Figure(figsize=(columns * width, rows * (1.75 if predicted else 1.55) + 0.5), layout="constrained")
    if title:
        set_text(figure.suptitle, title, columns * width, 12)
    for axes in (grid := figure.subplots(rows, columns, squeeze=False)).flat:
        axes.axis("off")
    for number, (axes, image) in enumerate(zip(grid.flat, images, strict=False)):
        axes.imshow(image)
        if predicted is None:
            set_text(axes.set_title, true[number], width, 9)
        else:
            colour = RIGHT if true[number] == predicted[number] else WRONG
            lines = true[number], f"→ {predicted[number]}"
            set_text(axes.set_title, lines, width, 8, color=colour)
    return figure


def learning_curves(state: "TrainingState") -> "Figure":
    """Accuracy, loss and learning rate over the epochs of a training (the report's figure 3)."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    history, title = state.history, f"{state.config.model}: best epoch {state.best.epoch} of {len(state.history)}"
    epochs = [metrics.epoch for metrics in history]
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    figure.suptitle(title)
    accuracy, loss, rate = figure.subplots(1, 3)
    for axes, name in ((accuracy, "accuracy"), (loss, "loss")):
        for split, colour in (("train", TRAINING), ("validation", VALIDATION)):
            values = [getattr(metrics, f"{split}_{name}") for metrics in history]
            axes.plot(epochs, values, marker="o", color=colour, label=split)
        axes.set_title(name)
        axes.legend()
    accuracy.yaxis.set_major_formatter(PercentFormatter(1.0))
    rate.plot(epochs, [metrics.learning_rate for metrics in history], marker="o", color="#555555")
    rate.set_title("learning rate at the epoch's end")
    for axes in (accuracy, loss, rate):
        axes.set(xlabel="epoch", xlim=(0.5, epochs[-1] + 0.5))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
    return figure


def confusion_matrix(counts: NDArray[np.int64], classes: Sequence[str], title: str) -> "Figure":
    """(classes, classes) counts, coloured by share of the true class; written out up to 20 classes."""
    from matplotlib.figure import Figure

    size = min(16.0, max(4.5, 0.62 * len(classes) + 2))
    figure = Figure(figsize=(size + 0.8, size), layout="constrained")
    axes = figure.subplots()
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure.colorbar(axes.imshow(share, cmap="Blues", vmin=0, vmax=1), ax=axes, label="share of the true class")
    axes.set(xlabel="predicted", ylabel="true")
    set_text(axes.set_title, title, size - 1, 12)
    labelled = range(0, len(classes), -(-len(classes) // MAX_LABELS))
    texts = [figure_text(classes[number], 1.6 * POINTS, 9) for number in labelled]
    fonts: dict[str, Any] = {"family": font_families(texts), "fontsize": 9}
    axes.set_xticks(labelled, texts, rotation=45, ha="right", **fonts)
    axes.set_yticks(labelled, texts, **fonts)
    if len(classes) <= 20:
        for row, column in np.ndindex(counts.shape):
            colour = "white" if share[row, column] > 0.5 else "black"
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=colour, fontsize=8)
    return figure


def reliability_diagram(calibration: "Calibration", title: str) -> "Figure":
    """Accuracy by confidence beside the diagonal of perfect calibration, and how many images have which confidence."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    bins, width = calibration.bins, 1 / len(calibration.bins)
    left = [number * width for number in range(len(bins))]
    figure = Figure(figsize=(5.5, 6.5), layout="constrained")
    accuracy, images = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    set_text(accuracy.set_title, title, 5, 12)
    heights = [part.accuracy for part in bins]
    accuracy.bar(left, heights, width, align="edge", color=TRAINING, edgecolor="white", label="accuracy")
    accuracy.plot([0, 1], [0, 1], "--", color="#555555", label="perfect calibration")
    measures = f"expected calibration error {calibration.expected_error:.3f}\nBrier score {calibration.brier:.3f}"
    accuracy.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    accuracy.legend(title=measures, loc="upper left")
    images.bar(left, [part.images for part in bins], width, align="edge", color=VALIDATION, edgecolor="white")
    images.set(xlabel="confidence: probability of the predicted class", ylabel="images")
    images.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=4))
    return figure


def confused_images(pairs: Sequence[tuple[str, str, int, NDArray[np.uint8]]], title: str) -> "Figure":
    """A row for each pair: its true class, what it was taken for, how often, and up to 8 of the images (N, H, W, 3)."""
    from matplotlib.figure import Figure

    columns, label, side = 8, 2.4, 1.0
    width = label + columns * side
    figure = Figure(figsize=(width, max(1, len(pairs)) * 1.1 * side + 0.5), layout="constrained")
    set_text(figure.suptitle, title, width, 12)
    grid = figure.subplots(max(1, len(pairs)), columns + 1, squeeze=False, width_ratios=[label, *[side] * columns])
    for axes in grid.flat:
        axes.axis("off")
    for row, (true, predicted, count, images) in zip(grid, pairs, strict=False):
        lines = true, f"→ {predicted}", f"{count:,} image{'s' if count > 1 else ''}"
        set_text(partial(row[0].text, 0, 0.5, va="center"), lines, label, 9)
        for axes, image in zip(row[1:], images, strict=False):
            axes.imshow(image)
    return figure


def sample_indices(count: int, seed: int, wanted: int = 32) -> NDArray[np.int64]:
    """Which images a grid shows: the same for the same seed."""
    return np.random.default_rng(seed).permutation(count)[:wanted]
