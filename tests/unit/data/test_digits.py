import hashlib

import numpy as np
import pytest

from cifar_tasks.data.digits import DigitsSource
from cifar_tasks.data.image_format import ImageFormat
from cifar_tasks.data.spool import spooled
from cifar_tasks.data.validation import validate
from tests.unit.data.sources import quiet, read_all


def test_digits_are_colour_images_of_32_by_32_with_a_stratified_test_set() -> None:
    train, test = read_all(DigitsSource())
    assert (train.images.dtype, train.images.shape) == (np.uint8, (1438, 32, 32, 3))
    assert test.images.shape == (359, 32, 32, 3)
    assert DigitsSource().read(quiet).classes == tuple("0123456789")
    assert set(np.bincount(test.labels)) <= {34, 35, 36, 37}
    assert (train.images.min(), train.images.max()) == (0, 255)


def test_digits_pass_validation_with_no_warning_but_of_similar_ones() -> None:
    with spooled(DigitsSource().read(quiet), ImageFormat(), quiet) as raw:
        assert all("near-duplicates" in warning for warning in validate(raw))


def test_the_test_set_is_the_same_in_every_version_of_this_product() -> None:
    """Else models of different runs could not be compared."""
    _, test = read_all(DigitsSource())
    assert hashlib.sha256(test.images.tobytes()).hexdigest()[:12] == "62d5df7d375f"
    assert hashlib.sha256(test.labels.tobytes()).hexdigest()[:12] == "bfc50f70029d"


@pytest.mark.parametrize("size", [16, 64])
def test_digits_have_other_sizes_too(size: int) -> None:
    train, _ = read_all(DigitsSource(), ImageFormat(size))
    assert train.images.shape == (1438, size, size, 3)
    assert train.images.std() > 80


def test_digits_are_placeholder_data() -> None:
    assert DigitsSource().placeholder
