"""The figure of a quarantined delivery: which images it shows, and what stands above them."""

import io
import warnings

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from cifar_tasks.data.quality.quality_checks import check
from cifar_tasks.data.quality.quality_figure import quality_figure
from cifar_tasks.data.quality.quality_limits import QualityLimits
from cifar_tasks.data.quality.quality_report import Example, QualityReport
from cifar_tasks.data.quality.snapshot import Snapshot
from tests.names import NASTY_NAMES
from tests.unit.data.quality.test_quality_page import quarantined


def with_examples(*examples: tuple[int, str], **fields: object) -> tuple[QualityReport, Snapshot]:
    """Positions, and why they are shown; the label tells the position."""
    report, version = quarantined()
    found = tuple(Example(position=position, name="x", label=f"at {position}", why=why) for position, why in examples)
    return report.model_copy(update={"examples": found, **fields}), version


def titles(figure: Figure | None) -> list[str]:
    assert figure is not None
    return [axes.get_title() for axes in figure.axes if axes.images]


def test_the_images_of_the_report_are_shown_with_label_and_reason():
    report, version = with_examples((7, "looks like bee"), (3, "grey"))
    figure = quality_figure(report, version)
    assert titles(figure) == ["at 7\nlooks like bee", "at 3\ngrey"]
    for axes, position in zip(figure.axes, (7, 3), strict=False):
        expected = version.images.read(np.array([position]))[0]
        assert np.array_equal(axes.images[0].get_array(), expected)


def test_of_many_images_each_reason_has_as_many():
    report, version = with_examples(*((number, "grey") for number in range(20)), (30, "dark"), (31, "copy"))
    shown = [title.split("\n")[1] for title in titles(quality_figure(report, version))]
    assert len(shown) == 12
    assert shown[:3] == ["grey", "dark", "copy"]


def test_three_images_stand_in_a_row():
    for count, rows in ((1, 1), (3, 1), (4, 2), (12, 4)):
        report, version = with_examples(*((number, "grey") for number in range(count)))
        figure = quality_figure(report, version)
        assert len(figure.axes) == 3 * rows
        assert figure.get_figheight() == pytest.approx(rows * 1.45 * figure.get_figwidth() / 3)


def test_of_a_long_reason_two_lines_are_shown():
    report, version = with_examples((7, "resembles a picture in use with a long name"))
    assert titles(quality_figure(report, version)) == ["at 7\nresembles a\npicture in use"]


def test_without_examples_the_suspicious_labels_are_shown():
    report, version = quarantined()
    report = report.model_copy(update={"examples": ()})
    assert len(titles(quality_figure(report, version))) == min(12, len(report.suspicious)) > 0


def test_a_delivery_of_which_no_check_names_an_image_has_no_figure():
    report, version = with_examples(suspicious=())
    assert quality_figure(report, version) is None


def test_long_reasons_and_names_of_any_kind_stay_above_their_own_image():
    report, version = with_examples(*((number, f"equals {name}") for number, name in enumerate(NASTY_NAMES)))
    for start in range(0, len(NASTY_NAMES), 12):
        figure = quality_figure(report.model_copy(update={"examples": report.examples[start : start + 12]}), version)
        buffer = io.BytesIO()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            figure.savefig(buffer, dpi=100)
        assert Image.open(buffer).width == 300
        assert max(axes.title.get_window_extent().width for axes in figure.axes) <= 100
        assert max(title.count("\n") for title in titles(figure)) <= 2


def test_a_real_report_of_copies_has_a_figure():
    report, version = quarantined()
    assert not check(version, None, QualityLimits()).passed
    assert len(titles(quality_figure(report, version))) == 12
