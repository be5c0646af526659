"""What makes a dataset unusable, and what a user should know about it."""

from collections import Counter

import numpy as np

from cifar_tasks.data.images import Labels
from cifar_tasks.data.spool import RawDataset
from cifar_tasks.errors import DataError

MAX_IMBALANCE = 3.0
"""Largest class over smallest; above it accuracy alone misleads, and there is a warning."""
MAX_LEAKED_TEST_SHARE = 0.01
"""Of the test images, also in training. The official CIFAR-10 has a few such pairs."""


def validate(raw: RawDataset) -> tuple[str, ...]:
    """Returns warnings for people. Raises `DataError` for what makes training or its result meaningless."""
    for split, labels in (("train", raw.train_labels), ("test", raw.test_labels)):
        _check_labels(f"{raw.name}, {split}", labels, len(raw.classes))
    return (*_imbalance(raw), *_untested(raw), *_duplicates(raw))


def _check_labels(where: str, labels: Labels, classes: int) -> None:
    if not len(labels):
        raise DataError(f"{where}: there are no images.")
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(f"{where}: labels run from {labels.min()} to {labels.max()}, but there are {classes} classes.")


def _imbalance(raw: RawDataset) -> list[str]:
    counts = np.bincount(raw.train_labels, minlength=len(raw.classes))
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
    counts = np.bincount(raw.test_labels, minlength=len(raw.classes))
    missing = [name for name, count in zip(raw.classes, counts, strict=True) if count == 0]
    return [f"no test images of {', '.join(missing)}: they are not tested"] if missing else []


def _duplicates(raw: RawDataset) -> list[str]:
    train, test = Counter(raw.digests[: len(raw.train_labels)]), raw.digests[len(raw.train_labels) :]
    leaked = sum(digest in train for digest in test)
    share = leaked / len(test)
    if share > MAX_LEAKED_TEST_SHARE:
        raise DataError(
            f"{raw.name}: {leaked:,} of {len(test):,} test images ({share:.1%}) are also in training, "
            "so that the test would only measure memory. Remove them from one of the two."
        )
    warnings = []
    if leaked:
        warnings.append(f"{leaked} of {len(test):,} test images are also in training ({share:.2%})")
    if repeated := train.total() - len(train):
        warnings.append(
            f"{repeated} training images repeat another one exactly; equal images stay on one side of a split"
        )
    return warnings
