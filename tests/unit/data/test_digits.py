import numpy as np
import pytest

from cifar_tasks.data.digits import DigitsSource
from cifar_tasks.data.validation import validate

pytest.importorskip("sklearn", reason="scikit-learn is part of the extra `train`")


def test_digits_are_colour_images_of_32_by_32_with_a_stratified_test_set() -> None:
    raw = DigitsSource().load(lambda line: None)
    assert (raw.train.images.dtype, raw.train.images.shape) == (np.uint8, (1438, 32, 32, 3))
    assert raw.test.images.shape == (359, 32, 32, 3)
    assert raw.classes == tuple("0123456789")
    assert set(np.bincount(raw.test.labels)) <= {34, 35, 36, 37}
    assert (raw.train.images.min(), raw.train.images.max()) == (0, 255)


def test_digits_pass_validation_without_a_warning() -> None:
    assert validate(DigitsSource().load(lambda line: None)) == ()


def test_the_test_set_is_always_the_same() -> None:
    first, again = (DigitsSource().load(lambda line: None).test for _ in range(2))
    assert (first.images == again.images).all()


def test_digits_stand_in_for_cifar10() -> None:
    assert DigitsSource().stand_in
