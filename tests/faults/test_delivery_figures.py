"""What the checks of deliveries find in real images, and how often they are wrong. Takes some minutes."""

import numpy as np
import pytest

from benchmarks.delivery_checks import (
    CLEAN_DELIVERIES,
    COPIES,
    Data,
    copies_found,
    failed,
    false_copies,
    fault_reports,
    read_data,
    suspicious_flips,
)
from cifar_tasks.settings import PROJECT

ARCHIVE = PROJECT.parent / "shared" / "data" / "cifar10-images.zip"


@pytest.fixture(scope="module")
def data() -> Data:
    if not ARCHIVE.exists():
        pytest.skip(f"{ARCHIVE.name} is not on this machine (it is looked for in ../shared/data)")
    return read_data(ARCHIVE)


def test_cifar10_has_its_50_000_and_10_000_images(data):
    assert (len(data.images), len(data.in_use.test)) == (50_000, 10_000)
    assert set(np.bincount(data.labels)) == {5_000}


def test_most_flipped_labels_are_among_the_most_suspicious(data):
    assert suspicious_flips(data) >= 0.6


def test_copies_are_found_and_other_images_are_not_taken_for_copies(data):
    assert min(copies_found(data, alter) for alter in COPIES.values()) >= 0.95
    assert false_copies(data) <= 0.01


def test_each_fault_is_quarantined_for_the_right_reason(data):
    missed = {what: failed(report) for what, name, report in fault_reports(data) if name not in failed(report)}
    assert missed == {}


@pytest.mark.timeout(1200)
def test_of_clean_deliveries_at_most_one_is_quarantined(data):
    reports = [data.check(*data.delivered(number)) for number in range(CLEAN_DELIVERIES)]
    assert sum(not report.passed for report in reports) <= 1
