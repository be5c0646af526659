"""Figures of any names, in bounded size."""

import io
import warnings

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from PIL import Image

from cifar_tasks.evaluation import plots
from cifar_tasks.evaluation.calibration import calibrate
from tests.names import NASTY_NAMES
from tests.unit.tracking.test_mlflow_run import state

IMAGES = np.zeros((32, 16, 16, 3), np.uint8)


def drawn(figure):
    """Width and height in pixels; a warning, as of a missing glyph, is an error."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.savefig(buffer)
    return Image.open(buffer).size


@pytest.mark.parametrize("start", range(0, len(NASTY_NAMES), 16))
def test_titles_of_any_names_stay_within_their_column(start):
    names = [NASTY_NAMES[(start + number) % len(NASTY_NAMES)] for number in range(32)]
    for predicted in (names[::-1], None):
        figure = plots.image_grid(IMAGES, names, predicted, title="".join(NASTY_NAMES))
        width, _ = drawn(figure)
        renderer = FigureCanvasAgg(figure).get_renderer()
        titles = [axes.title.get_window_extent(renderer).width for axes in figure.axes]
        assert max(titles) <= width / 8
        assert figure.get_suptitle()


@pytest.mark.parametrize("count", [2, 3, 10, 20, 21, 200, 1000])
def test_a_confusion_matrix_has_at_most_2000_pixels_and_50_labels_on_each_side(count):
    figure = plots.confusion_matrix(np.eye(count, dtype=np.int64), [f"class {n}" for n in range(count)], "title")
    axes = figure.axes[0]
    assert len(axes.get_xticks()) == len(axes.get_yticks()) <= min(count, plots.MAX_LABELS)
    assert axes.get_xticklabels()[0].get_text() == "class 0"
    if count <= 20:
        assert len(axes.texts) == count**2
    assert max(drawn(figure)) <= 2000


def test_a_confusion_matrix_of_any_names_is_drawn():
    counts = np.eye(len(NASTY_NAMES), dtype=np.int64)
    figure = plots.confusion_matrix(counts, NASTY_NAMES, NASTY_NAMES[0])
    assert drawn(figure) == (1680, 1600)
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels[2:4] == [r"\$a_\$", r"a\$b\$c"]
    assert "…" in labels[NASTY_NAMES.index("W" * 200)]


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_learning_curves_have_one_tick_per_epoch(epochs):
    figure = plots.learning_curves(state(epochs))
    drawn(figure)
    for axes in figure.axes:
        low, high = axes.get_xlim()
        assert [tick for tick in axes.get_xticks() if low < tick < high] == list(range(1, epochs + 1))


def test_rows_of_the_confusion_matrix_are_true_classes_coloured_by_their_share():
    axes = plots.confusion_matrix(np.array([[3, 1], [0, 8]]), ["ant", "bee"], "title").axes[0]
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("true", "predicted")
    assert axes.images[0].get_array().tolist() == [[0.75, 0.25], [0, 1]]
    written = {(int(text.get_position()[1]), int(text.get_position()[0])): text.get_text() for text in axes.texts}
    assert written == {(0, 0): "3", (0, 1): "1", (1, 0): "0", (1, 1): "8"}


def test_wrong_predictions_stand_in_red_and_right_ones_in_green():
    images = np.zeros((2, 8, 8, 3), np.uint8)
    right, wrong = plots.image_grid(images, ["ant", "ant"], ["ant", "bee"]).axes[:2]
    red, green, _ = to_rgb(wrong.title.get_color())
    assert red > 2 * green
    red, green, _ = to_rgb(right.title.get_color())
    assert green > 2 * red


def test_a_reliability_diagram_has_the_accuracy_and_the_images_of_each_bin_and_both_measures():
    calibration = calibrate(np.array([[0.9, 0.1]] * 4 + [[0.6, 0.4]] * 2), np.array([0, 0, 0, 1, 1, 1]))
    figure = plots.reliability_diagram(calibration, NASTY_NAMES[0])
    drawn(figure)
    accuracy, images = figure.axes
    bars = {round(bar.get_x(), 3): bar.get_height() for bar in accuracy.patches if bar.get_height()}
    assert bars == {0.867: 0.75}
    assert [bar.get_height() for bar in images.patches if bar.get_height()] == [2, 4]
    assert accuracy.get_legend().get_title().get_text() == "expected calibration error 0.300\nBrier score 0.520"


def test_confused_pairs_have_a_row_each_with_their_names_number_and_images():
    pairs = [(NASTY_NAMES[n], NASTY_NAMES[-n - 1], n + 1, IMAGES[: n + 1]) for n in range(8)]
    figure = plots.confused_images(pairs, "title")
    assert max(drawn(figure)) <= 2000
    shown = [len(axes.images) for axes in figure.axes]
    assert sum(shown) == sum(range(1, 9))
    texts = [axes.texts[0].get_text().splitlines()[-1] for axes in figure.axes if axes.texts]
    assert texts == ["1 image", *(f"{n} images" for n in range(2, 9))]


def test_a_model_without_mistakes_has_an_empty_figure_of_confused_pairs():
    figure = plots.confused_images([], "title")
    drawn(figure)
    assert not any(axes.images for axes in figure.axes)


def test_learning_curves_show_training_and_validation_under_their_own_names():
    trained = state(3)
    accuracy, loss, rate = plots.learning_curves(trained).axes
    for axes, name in ((accuracy, "accuracy"), (loss, "loss")):
        drawn_values = {line.get_label(): list(line.get_ydata()) for line in axes.lines}
        assert drawn_values == {
            split: [getattr(metrics, f"{split}_{name}") for metrics in trained.history]
            for split in ("train", "validation")
        }
    assert list(rate.lines[0].get_ydata()) == [metrics.learning_rate for metrics in trained.history]
