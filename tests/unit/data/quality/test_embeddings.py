"""Embeddings that tell classes apart, the same ones each time."""

import numpy as np
import pytest

from cifar_tasks.data.quality.embeddings import DIMENSIONS, at_side, embed, fit_encoder
from tests.snapshots import drawn_labels, pictures

LABELS = drawn_labels(90, 1)
IMAGES = pictures(LABELS, 2)


def test_images_of_a_class_are_nearer_to_each_other():
    (found,) = embed(IMAGES)
    distances = np.linalg.norm(found[:, None] - found, axis=2)
    same = LABELS[:, None] == LABELS
    assert distances[same & ~np.eye(90, dtype=bool)].mean() < 0.95 * distances[~same].mean()


def test_embeddings_depend_on_the_reference_and_not_on_the_others():
    reference, others = embed(IMAGES[:60], IMAGES[60:])
    again, alone = embed(IMAGES[:60], IMAGES[60:61])
    assert np.array_equal(reference, again)
    assert np.allclose(others[:1], alone, atol=1e-4)
    assert reference.shape[1] <= DIMENSIONS


@pytest.mark.parametrize("count", [1, 2])
def test_one_image_and_images_that_are_all_equal_have_embeddings(count):
    (found,) = embed(np.full((count, 32, 32, 3), 7, np.uint8))
    assert np.isfinite(found).all()


def test_a_quarter_of_an_image_is_described_by_how_far_its_patches_respond_to_each_filter_in_both_directions():
    encoder = fit_encoder(IMAGES)
    (found,) = encoder.encode(IMAGES[:1])
    responses = []
    for row in range(0, 27, 2):
        for column in range(0, 27, 2):
            patch = IMAGES[0, row : row + 6, column : column + 6].transpose(2, 0, 1).ravel().astype(np.float64)
            normal = (patch - patch.mean()) / np.sqrt(patch.var() + 10)
            response = normal @ encoder.weights - encoder.bias
            responses.append([np.maximum(response - 0.5, 0), np.maximum(-response - 0.5, 0)])
    grid = np.array(responses).reshape(14, 14, -1)
    quarters = [grid[rows, columns].mean((0, 1)) for rows in HALVES for columns in HALVES]
    assert found == pytest.approx(np.concatenate(quarters), abs=1e-3)
    assert encoder.encode(IMAGES[:0]).shape == (0, len(found))


HALVES = (slice(0, 7), slice(7, 14))
"""Of the 14 places of a patch in a row."""


def test_images_of_another_size_become_as_large():
    large = IMAGES.repeat(2, axis=1).repeat(2, axis=2)
    assert np.array_equal(at_side(large, 32), IMAGES)
    assert at_side(IMAGES[:0], 64).shape == (0, 32, 32, 3)
