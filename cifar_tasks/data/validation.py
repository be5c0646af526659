"""What every data set must be, and what a user should know about it all the same."""

import hashlib
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from cifar_tasks.data.images import IMAGE_SHAPE, Images, LabelledImages, RawDataset
from cifar_tasks.errors import DataError

MAX_IMBALANCE = 3.0
"""Largest class over smallest; above it accuracy alone misleads and a warning says so."""
MAX_LEAKED_TEST_SHARE = 0.01
"""Of the test images, standing in training too. The official CIFAR-10 has a few such pairs."""


def validate(raw: RawDataset) -> tuple[str, ...]:
    """Returns warnings for people. Raises `DataError` for what makes training or its result meaningless."""
    for split, part in (("train", raw.train), ("test", raw.test)):
        _check_arrays(f"{raw.name}, {split}", part, len(raw.classes))
    return (*_imbalance(raw), *_untested(raw), *_duplicates(raw))


def image_groups(images: Images) -> NDArray[np.int64]:
    """A number for each image, the same for images that agree in every pixel."""
    numbers: dict[bytes, int] = {}
    return np.array([numbers.setdefault(digest, len(numbers)) for digest in _digests(images)], dtype=np.int64)


def _digests(images: Images) -> list[bytes]:
    return [hashlib.blake2b(image, digest_size=16).digest() for image in np.ascontiguousarray(images)]


def _check_arrays(where: str, part: LabelledImages, classes: int) -> None:
    images, labels = part.images, part.labels
    if images.shape[1:] != IMAGE_SHAPE or images.dtype != np.uint8:
        raise DataError(f"{where}: images are {images.dtype} {images.shape}, expected uint8 N × 32 × 32 × 3.")
    if labels.shape != images.shape[:1] or labels.dtype != np.int64:
        raise DataError(f"{where}: {len(images):,} images but labels are {labels.dtype} {labels.shape}.")
    if not len(labels):
        raise DataError(f"{where}: there are no images.")
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(f"{where}: labels run from {labels.min()} to {labels.max()}, but there are {classes} classes.")


def _imbalance(raw: RawDataset) -> list[str]:
    counts = np.bincount(raw.train.labels, minlength=len(raw.classes))
    if counts.min() < 2:
        raise DataError(
            f"{raw.name}: class {raw.classes[counts.argmin()]!r} has {counts.min()} training images, not 2."
        )
    ratio = counts.max() / counts.min()
    if ratio <= MAX_IMBALANCE:
        return []
    largest, smallest = raw.classes[counts.argmax()], raw.classes[counts.argmin()]
    return [f"classes are unbalanced: {largest} has {ratio:.1f} times as many training images as {smallest}"]


def _untested(raw: RawDataset) -> list[str]:
    counts = np.bincount(raw.test.labels, minlength=len(raw.classes))
    missing = [name for name, count in zip(raw.classes, counts, strict=True) if count == 0]
    return [f"no test images of {', '.join(missing)}: the test says nothing about them"] if missing else []


def _duplicates(raw: RawDataset) -> list[str]:
    train = Counter(_digests(raw.train.images))
    leaked = sum(digest in train for digest in _digests(raw.test.images))
    share = leaked / len(raw.test)
    if share > MAX_LEAKED_TEST_SHARE:
        raise DataError(
            f"{raw.name}: {leaked:,} of {len(raw.test):,} test images ({share:.1%}) stand in training too, "
            "so that the test would only measure memory. Remove them from one of the two."
        )
    warnings = []
    if leaked:
        warnings.append(f"{leaked} of {len(raw.test):,} test images stand in training too ({share:.2%})")
    if repeated := train.total() - len(train):
        warnings.append(
            f"{repeated} training images repeat another one exactly; equal images stay on one side of a split"
        )
    return warnings
