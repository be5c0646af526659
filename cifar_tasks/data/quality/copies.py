"""Added images that repeat others: exactly, mirrored, saved again or resized."""

from typing import NamedTuple

import numpy as np

from cifar_tasks.data.near_duplicates import Hashes, difference_hashes, near_copies, near_duplicates, thumbnails
from cifar_tasks.data.quality.snapshot import ImageSet
from cifar_tasks.data.splits import Indices

BATCH = 1_000


class Copy(NamedTuple):
    position: int
    """Of the added image."""
    original: int
    """Position in the set that has the original."""
    exact: bool


def copies_of(added: Indices, images: ImageSet, originals: ImageSet) -> list[Copy]:
    """Of the images at `added`, those that repeat one of the originals: each once."""
    where = dict(zip(reversed(originals.digests), range(len(originals) - 1, -1, -1), strict=True))
    found = {p: Copy(p, where[images.digests[p]], True) for p in added.tolist() if images.digests[p] in where}
    others = np.array([position for position in added.tolist() if position not in found], np.int64)
    if len(others) and len(originals):

        def read(original: int, other: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
            return np.concatenate([originals.read(np.array([original])), images.read(others[[other]])])

        everything = np.arange(len(originals))
        pairs = near_copies(_hashes(originals, everything), _hashes(images, others), read).pairs
        for original, other in pairs:
            found.setdefault(int(others[other]), Copy(int(others[other]), original, False))
    return [found[position] for position in sorted(found)]


def copies_within(added: Indices, images: ImageSet) -> list[Copy]:
    """Added images that repeat another added one: all but the first of each."""
    first: dict[str, int] = {}
    found = {}
    for position in added.tolist():
        original = first.setdefault(images.digests[position], position)
        if original != position:
            found[position] = Copy(position, original, True)
    single = np.array(list(first.values()), np.int64)
    if len(single) > 1:
        thumbs = np.concatenate([thumbnails(images.read(part)) for part in _batches(single)])
        pairs, _ = near_duplicates(thumbs, np.arange(len(single)), lambda where: images.read(single[where]))
        for one, other in pairs:
            found.setdefault(int(single[other]), Copy(int(single[other]), int(single[one]), False))
    return [found[position] for position in sorted(found)]


def _hashes(images: ImageSet, positions: Indices) -> Hashes:
    return np.concatenate([difference_hashes(thumbnails(images.read(part))) for part in _batches(positions)])


def _batches(positions: Indices) -> list[Indices]:
    return [positions[start : start + BATCH] for start in range(0, len(positions), BATCH)]
