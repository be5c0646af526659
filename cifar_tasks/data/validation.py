"""What makes a dataset unusable, and what a user should know about it."""

import numpy as np
from numpy.typing import NDArray

from cifar_tasks.data.images import Labels
from cifar_tasks.data.messages import listed, readable
from cifar_tasks.data.near_duplicates import near_duplicates
from cifar_tasks.data.splits import Indices
from cifar_tasks.data.spool import RawDataset
from cifar_tasks.errors import DataError

MAX_IMBALANCE = 3.0
"""Largest class over smallest; above it accuracy alone misleads, and there is a warning."""
MAX_LEAKED_TEST_SHARE = 0.01
"""Of the test images, also in training: with more, one of the two sets is not what it should be."""
NEAR_SHOWN = 5
"""Pairs of near-duplicates in a warning: CIFAR-10 itself has dozens, and the warning is part of every report."""


def validate(raw: RawDataset) -> tuple[str, ...]:
    """Returns warnings for people. Raises `DataError` for what makes training or its result meaningless."""
    if raw.test_set == "drawn" and not len(raw.test):
        raise DataError(
            f"{raw.name}: there is no test folder, and all images of each class are equal: "
            "none can be drawn as the test set. Add other images."
        )
    for split, labels in (("train", raw.labels[~raw.is_test]), ("test", raw.labels[raw.is_test])):
        _check_labels(f"{raw.name}, {split}", labels, len(raw.classes))
    leaked = _leaked(raw)
    return (
        *raw.warnings,
        *_drawn_test(raw),
        *_imbalance(raw),
        *_untested(raw),
        *leaked,
        *_duplicates(raw),
        *_near_duplicates(raw),
    )


def _check_labels(where: str, labels: Labels, classes: int) -> None:
    if not len(labels):
        raise DataError(f"{where}: there are no images.")
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(f"{where}: labels run from {labels.min()} to {labels.max()}, but there are {classes} classes.")


def _imbalance(raw: RawDataset) -> list[str]:
    counts = np.bincount(raw.labels[raw.train], minlength=len(raw.classes))
    if counts.min() < 2:
        without = " that are not test images too" if len(raw.left_out) else ""
        raise DataError(
            f"{raw.name}: class {raw.classes[counts.argmin()]!r} has {counts.min()} training images{without}, not 2."
        )
    ratio = counts.max() / counts.min()
    if ratio <= MAX_IMBALANCE:
        return []
    largest, smallest = (readable(raw.classes[index]) for index in (counts.argmax(), counts.argmin()))
    return [f"classes are unbalanced: {largest} has {ratio:.1f} times as many training images as {smallest}"]


def _drawn_test(raw: RawDataset) -> list[str]:
    if raw.test_set == "given":
        return []
    share = f"{len(raw.test):,} of {len(raw.labels):,} images ({len(raw.test) / len(raw.labels):.0%})"
    return [
        f"the source has no test images: {share} were drawn from each class as the test set, and are not trained on"
    ]


def _untested(raw: RawDataset) -> list[str]:
    missing = _classes_without(raw, raw.test)
    return [f"no test images of {missing}: they are not tested"] if missing else []


def unvalidated(raw: RawDataset, validation: Indices) -> list[str]:
    """A warning about classes whose images are all equal, so that none of them is left for validation."""
    if not len(validation):
        raise DataError(f"{raw.name}: all training images of each class are equal: none is left for validation.")
    missing = _classes_without(raw, validation)
    return [f"no validation images of {missing}: all their images are equal"] if missing else []


def _classes_without(raw: RawDataset, positions: Indices) -> str:
    counts = np.bincount(raw.labels[positions], minlength=len(raw.classes))
    return listed([readable(name) for name, count in zip(raw.classes, counts, strict=True) if count == 0])


def _leaked(raw: RawDataset) -> list[str]:
    """Test images that are training images too: left out of training if they are few."""
    if not len(raw.left_out):
        return []
    trained = {int(raw.groups[position]): raw.names[position] for position in raw.left_out[::-1].tolist()}
    tested = ((raw.names[position], int(raw.groups[position])) for position in raw.test.tolist())
    named = [f"{name} = {trained[group]}" for name, group in tested if group in trained]
    leaked, total, pairs = len(named), len(raw.test), listed(named)
    share = leaked / total
    if share > MAX_LEAKED_TEST_SHARE:
        raise DataError(
            f"{raw.name}: {leaked:,} of {total:,} test images ({share:.1%}) are also in training, "
            f"so that the test would only measure memory. Remove them from one of the two: {pairs}."
        )
    return [f"{leaked} of {total:,} test images are also in training ({share:.2%}) and are left out there: {pairs}"]


def _duplicates(raw: RawDataset) -> list[str]:
    warnings = []
    groups = raw.groups[raw.train]
    if repeated := len(groups) - len(np.unique(groups)):
        warnings.append(
            f"{repeated} training images repeat another one exactly; equal images stay on one side of a split: "
            f"{_equal_pairs(raw, raw.train)}"
        )
    labelled = np.unique(np.stack([raw.groups, raw.labels], axis=1), axis=0)[:, 0]
    several = np.unique(labelled[:-1][labelled[1:] == labelled[:-1]])
    contradicting = np.flatnonzero(np.isin(raw.groups, several))
    if len(contradicting):
        warnings.append(
            f"contradicting labels: {len(contradicting)} images are equal to one of another class: "
            f"{_equal_pairs(raw, contradicting, labels=True)}"
        )
    return warnings


def _equal_pairs(raw: RawDataset, positions: Indices, labels: bool = False) -> str:
    """Each image with the first one that it repeats, or repeats with another label."""
    first: dict[int, int] = {}
    pairs = []
    for position in positions.tolist():
        other = first.setdefault(int(raw.groups[position]), position)
        if other != position and not (labels and raw.labels[other] == raw.labels[position]):
            pairs.append(f"{raw.names[position]} = {raw.names[other]}")
    return listed(pairs)


def _near_duplicates(raw: RawDataset) -> list[str]:
    _, first = np.unique(raw.groups, return_index=True)
    pairs, complete = near_duplicates(raw.thumbs, np.sort(first), raw.read)
    if not pairs:
        return []
    crosses: NDArray[np.bool_] = raw.is_test[np.array(pairs)].any(1) & ~raw.is_test[np.array(pairs)].all(1)
    named = [f"{raw.names[one]} ~ {raw.names[other]}" for one, other in pairs]
    kinds = {
        "test and training images": [name for name, crossing in zip(named, crosses, strict=True) if crossing],
        "images": [name for name, crossing in zip(named, crosses, strict=True) if not crossing],
    }
    least = "" if complete else "at least "
    what = "near-duplicates (mirrored, saved again or resized)"
    return [
        f"{least}{len(names)} pairs of {kind} are {what}: {listed(names, NEAR_SHOWN)}"
        for kind, names in kinds.items()
        if names
    ]
