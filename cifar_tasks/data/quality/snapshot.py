"""The images of a dataset version, as the checks read them, and what a delivery has changed."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cifar_tasks.data.images import Images, Labels
from cifar_tasks.data.splits import Indices


@dataclass(frozen=True)
class ImageSet:
    """Images that are read when they are needed: a version may be larger than memory."""

    labels: Labels
    names: Sequence[str]
    """Of their files."""
    digests: Sequence[str]
    """Of their pixels: equal for equal images."""
    read: Callable[[Indices], Images]
    """The images at these positions."""
    sizes: NDArray[np.int64] | None = None
    """Width and height of the pictures in their files, N × 2; 0 where they are not known."""

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Snapshot:
    """A dataset version, and what its delivery held beside its images."""

    classes: tuple[str, ...]
    images: ImageSet
    """For training and validation."""
    test: ImageSet
    """The frozen test set."""
    unreadable: tuple[str, ...] = ()
    """Names of files that are no readable images."""
    test_copies: tuple[str, ...] = ()
    """Names of files that were left out, because they equal or resemble a test image."""

    def classes_with_images(self) -> set[str]:
        """A line keeps the numbers of classes whose images are all gone."""
        return {self.classes[number] for number in np.unique(self.images.labels)}


@dataclass(frozen=True)
class Changes:
    """Positions in the images of the new version, and how many images are gone."""

    added: Indices
    relabelled: Indices
    """In use with another label."""
    gone: int


@dataclass(frozen=True)
class Predictions:
    """What a model says about a delivery that it has not learnt, and about images in use that it has not learnt."""

    model: str
    """For people."""
    positions: Indices
    """Of the images in the new version that were classified."""
    probabilities: NDArray[np.floating]
    """Of these images: N × classes of the new version."""
    reference_labels: Labels
    reference_probabilities: NDArray[np.floating] = field(repr=False)


def image_set(images: Images, labels: Labels, names: Sequence[str] = ()) -> ImageSet:
    """Of images in memory."""
    digests = [hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).hexdigest() for image in images]
    return ImageSet(labels, names or [f"{n:06}" for n in range(len(images))], digests, lambda where: images[where])


def compare_snapshots(new: Snapshot, in_use: Snapshot | None) -> Changes:
    """By the content of the images: one that was only renamed is not new."""
    known: dict[str, set[str]] = {}
    if in_use:
        for digest, label in zip(in_use.images.digests, in_use.images.labels.tolist(), strict=True):
            known.setdefault(digest, set()).add(in_use.classes[label])
    added, relabelled = [], []
    for position, (digest, label) in enumerate(zip(new.images.digests, new.images.labels.tolist(), strict=True)):
        if digest not in known:
            added.append(position)
        elif new.classes[label] not in known[digest]:
            relabelled.append(position)
    gone = len(known.keys() - set(new.images.digests))
    return Changes(np.array(added, np.int64), np.array(relabelled, np.int64), gone)
