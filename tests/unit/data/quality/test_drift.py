"""How far added images are from those in use, in shares, classes, statistics and embeddings."""

import numpy as np
import pytest
from scipy.stats import hypergeom

from cifar_tasks.data.quality.drift import (
    MIN_IMAGES,
    class_shift,
    embedding_drift,
    excess_share,
    statistic_shift,
    with_class_mix,
)
from cifar_tasks.data.quality.quality_checks import check
from cifar_tasks.data.quality.quality_limits import QualityLimits
from tests.snapshots import drawn_labels, grown, in_use, pictures, snapshot


def embeddings(count: int, seed: int, shift: float = 0.0) -> np.ndarray:
    """float32 (count, 64), of which one direction is shifted by so many standard deviations."""
    found = np.random.default_rng(seed).normal(size=(count, 64)).astype(np.float32)
    found[:, 0] += shift
    return found


def test_embeddings_of_one_kind_cannot_be_told_apart():
    found = embedding_drift(embeddings(300, 0), embeddings(600, 1))
    assert 0.4 < found.value < 0.6


def test_embeddings_of_another_kind_are_told_apart_and_not_by_chance():
    found = embedding_drift(embeddings(300, 0, shift=3.0), embeddings(600, 1))
    assert found.value > 0.95
    assert found.p_value < 1e-10


def test_too_few_images_are_not_compared():
    assert embedding_drift(embeddings(MIN_IMAGES - 1, 0), embeddings(600, 1)) is None
    assert embedding_drift(embeddings(600, 0), embeddings(MIN_IMAGES - 1, 1)) is None
    assert embedding_drift(embeddings(MIN_IMAGES, 0), embeddings(MIN_IMAGES, 1)) is not None


def test_a_delivery_of_other_textures_drifts():
    """Checkerboards in place of stripes, of the same brightness and colours."""
    labels = drawn_labels(150, 5)
    rows, columns = np.mgrid[:32, :32]
    board = np.where((rows + columns) % 2, 1, -1)[..., None]
    plain = pictures(labels, 6).mean((1, 2), keepdims=True)
    boards = np.clip(plain + 30 * board + np.random.default_rng(0).normal(0, 8, (150, 32, 32, 3)), 0, 255)
    report = check(grown(boards.astype(np.uint8), labels), snapshot(*in_use()), QualityLimits())
    (drift,) = [row for row in report.rows if row.check == "embedding drift"]
    assert not drift.passed
    assert drift.value > 0.9


def test_the_excess_is_the_difference_of_the_shares_with_the_chance_of_so_many():
    added, reference = np.arange(40) < 12, np.arange(98) < 9
    found = excess_share(added, reference)
    assert found.value == pytest.approx(12 / 40 - 9 / 98)
    assert found.p_value == pytest.approx(hypergeom.sf(11, 138, 21, 40))


def test_what_was_never_seen_before_is_no_surprise_by_itself():
    assert excess_share(np.array([True]), np.zeros(8, bool)).p_value == pytest.approx(1 / 9)


def test_of_deliveries_like_the_few_images_in_use_hardly_one_is_beyond_chance():
    random, surprises = np.random.default_rng(0), []
    for _ in range(400):
        classes = [np.bincount(random.integers(0, 10, size), minlength=10) for size in (500, 60)]
        if classes[1].all():
            surprises.append(class_shift(*classes).p_value < 0.01)
        surprises.append(excess_share(random.random(300) < 0.25, random.random(15) < 0.25).p_value < 0.01)
    assert np.mean(surprises) < 0.02


def test_equal_shares_of_the_classes_have_no_shift_and_others_the_index_of_their_shares():
    assert class_shift(np.array([10, 30]), np.array([100, 300])) == (pytest.approx(0), pytest.approx(1))
    found = class_shift(np.array([30, 10]), np.array([100, 300]))
    assert found.value == pytest.approx(2 * 0.5 * np.log(3))
    assert found.p_value < 1e-8
    assert class_shift(np.array([40, 0]), np.array([100, 300])).value == pytest.approx(
        0.75 * np.log(4) + (0.75 - 0.0125) * np.log(0.75 / 0.0125)
    )


def test_the_shift_of_a_statistic_is_the_largest_distance_of_the_distributions():
    found = statistic_shift(np.arange(100.0), np.arange(50.0, 150.0))
    assert found.value == pytest.approx(0.5)
    assert found.p_value < 1e-9
    assert statistic_shift(np.arange(100.0), np.arange(100.0)) == (0, 1)


def test_images_are_chosen_with_the_mix_of_classes_that_is_wanted():
    labels, wanted = np.repeat([0, 1, 2, 3], [60, 40, 30, 7]), np.repeat([0, 1, 2], [30, 10, 1])
    chosen = with_class_mix(labels, wanted, np.random.default_rng(0))
    assert np.bincount(labels[chosen], minlength=4).tolist() == [60, 20, 2, 0]
    assert (np.diff(chosen) > 0).all()
    assert sorted(set(labels[with_class_mix(labels, np.array([1]), np.random.default_rng(0))])) == [1]


def test_without_a_class_in_common_no_image_is_chosen():
    assert with_class_mix(np.array([0, 0]), np.array([1]), np.random.default_rng(0)).tolist() == []
