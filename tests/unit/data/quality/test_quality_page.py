"""The report as a page and as Markdown, for images and names of any kind."""

import re

import numpy as np

from cifar_tasks.data.quality.quality_checks import check
from cifar_tasks.data.quality.quality_limits import QualityLimits
from cifar_tasks.data.quality.quality_page import MAX_SIDE, headline, quality_markdown, quality_page
from cifar_tasks.data.quality.quality_report import QualityReport
from cifar_tasks.data.quality.snapshot import Snapshot, image_set
from tests.snapshots import CLASSES, drawn_labels, pictures

NASTY = '<script>alert("1")</script>|\n'
LABELS = drawn_labels(60, 1)
IMAGES = pictures(LABELS, 2)


def quarantined(repeat: int = 1) -> tuple[QualityReport, Snapshot]:
    """Ten images are copies of one of the test set, and a file cannot be read."""
    images = IMAGES.copy()
    images[:10] = images[0]
    images = images.repeat(repeat, axis=1).repeat(repeat, axis=2)
    names = [f"{NASTY}{number}.png" for number in range(60)]
    classes = ("ant", "bee", f"cat{NASTY}")
    version = Snapshot(classes, image_set(images, LABELS, names), image_set(images[:1], LABELS[:1], names), (NASTY,))
    return check(version, None, QualityLimits()), version


def test_the_page_needs_no_other_file_and_shows_reasons_checks_and_images():
    report, version = quarantined()
    page = quality_page(report, version, title="Line pets", links=[("DAG run", "http://localhost/run")])
    assert headline(report) == "3 checks failed: 60 images added, 0 relabelled, 0 gone"
    assert headline(report) in page
    assert page.count('class="failed"') == 3
    assert page.count("data:image/png;base64,") >= 20
    assert set(re.findall(r'(?:src|href)="(\w+):', page)) == {"data", "http"}
    assert "max_label_errors 0.1" in page


def test_in_markdown_the_failed_checks_stand_first_and_are_called_so():
    report, _ = quarantined()
    rows = [line for line in quality_markdown(report).splitlines() if line.startswith("| ") and "check |" not in line]
    results = [line.split(" | ")[0] for line in rows if not line.startswith("| ---")]
    assert results == ["| **failed**"] * 3 + ["| passed"] * (len(report.rows) - 3)


def test_the_headline_counts_the_checks_that_failed():
    report, _ = quarantined()
    assert headline(report.model_copy(update={"reasons": report.reasons[:1]})).startswith("1 check failed: ")


def test_names_of_files_and_classes_are_text_on_the_page_and_in_markdown():
    report, version = quarantined()
    page = quality_page(report, version, title=f"Line {NASTY}")
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    shown = quality_markdown(report)
    assert "<script" not in shown
    assert all(line.count("|") == 3 for line in shown.splitlines() if line.startswith("|"))


def test_large_images_are_small_on_the_page():
    report, version = quarantined(8)
    page = quality_page(report, version, title="Line pets")
    assert MAX_SIDE == 64
    assert len(page) < 400_000


def test_a_version_that_passed_says_so():
    version = Snapshot(CLASSES, image_set(IMAGES, LABELS), image_set(IMAGES[:0], LABELS[:0]))
    report = check(version, None, QualityLimits())
    assert headline(report) == "passed: 60 images added, 0 relabelled, 0 gone"
    assert 'class="verdict passed"' in quality_page(report, version, title="Line pets")
    assert quality_markdown(report).startswith("**passed")


def test_a_report_is_the_same_after_it_was_kept_as_json():
    report, _ = quarantined()
    assert QualityReport.model_validate_json(report.model_dump_json()) == report
    assert np.isfinite([row.value for row in report.rows if row.value is not None]).all()
