"""What a training begins with: a sample of the images and the statistics of their channels."""

import numpy as np
import pytest
from cifar_tasks.steps.start import channel_statistics, sample

from cifar_tasks.data import LabelledImages

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)


def part(images: np.ndarray = IMAGES) -> LabelledImages:
    return LabelledImages(images, np.arange(len(images)))


def test_channel_statistics_are_those_of_values_from_zero_to_one():
    mean, deviation = channel_statistics(IMAGES)
    values = IMAGES / 255
    assert mean == pytest.approx(tuple(values.mean((0, 1, 2))))
    assert deviation == pytest.approx(tuple(values.std((0, 1, 2))))


def test_a_channel_without_contrast_is_not_divided_by_nothing():
    images = IMAGES.copy()
    images[..., 1] = 77
    mean, deviation = channel_statistics(images)
    assert mean[1] == pytest.approx(77 / 255)
    assert deviation[1] == 1


def test_a_sample_is_the_same_for_the_same_seed_and_another_for_another():
    first, again, other = (sample(part(), 10, seed).labels.tolist() for seed in (0, 0, 1))
    assert first == again
    assert first != other
    assert len(set(first)) == 10


@pytest.mark.parametrize("wanted", [None, 40, 41])
def test_where_no_fewer_are_wanted_all_images_are_taken_in_their_order(wanted: int | None):
    assert sample(part(), wanted, 0).labels.tolist() == list(range(40))
