"""A classifier tells images of another kind from those in use, and cannot tell images of the same kind."""

import numpy as np

from cifar_tasks.data.quality.drift import MIN_IMAGES, embedding_drift
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
