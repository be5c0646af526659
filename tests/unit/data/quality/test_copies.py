"""Copies are found with their originals, once each, and other images are no copies."""

import numpy as np
import pytest
from PIL import Image

from cifar_tasks.data.quality.copies import Copy, copies_of, copies_within
from cifar_tasks.data.quality.snapshot import ImageSet, image_set
from tests.dataset_lines import picture

ORIGINALS = image_set(np.stack([np.asarray(picture(number)) for number in range(120)]), np.zeros(120, int))
OTHERS = np.stack([np.asarray(picture(number)) for number in range(1_000, 1_020)])
EMPTY = image_set(np.empty((0, 32, 32, 3), np.uint8), np.empty(0, int))


def of_images(images: np.ndarray) -> ImageSet:
    return image_set(images, np.zeros(len(images), int))


def resized(images: np.ndarray) -> np.ndarray:
    return np.stack([np.asarray(Image.fromarray(image).resize((24, 24)).resize((32, 32))) for image in images])


@pytest.mark.parametrize(
    ("alter", "exact"), [(np.copy, True), (lambda images: images[:, :, ::-1], False), (resized, False)]
)
def test_copies_are_found_with_their_originals(alter, exact):
    copies = of_images(np.concatenate([OTHERS, alter(ORIGINALS.read(np.arange(40)))]))
    found = copies_of(np.arange(60), copies, ORIGINALS)
    assert {(copy.position - 20, copy.exact) for copy in found} == {(position, exact) for position in range(40)}
    assert all(copy.original == copy.position - 20 for copy in found)


def test_only_added_images_are_looked_at():
    assert copies_of(np.array([3, 5]), ORIGINALS, ORIGINALS) == [Copy(3, 3, True), Copy(5, 5, True)]
    assert copies_of(np.empty(0, int), ORIGINALS, ORIGINALS) == []
    assert copies_of(np.arange(10), ORIGINALS, EMPTY) == []


def test_of_repeated_images_all_but_the_first_are_copies():
    images = ORIGINALS.read(np.arange(4))
    added = of_images(np.concatenate([images, images[:1], images[1:2, :, ::-1]]))
    assert copies_within(np.arange(6), added) == [Copy(4, 0, True), Copy(5, 1, False)]
    assert copies_within(np.arange(1), added) == []
