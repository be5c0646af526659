"""Pictures that are copies of others without being equal: mirrored, saved again, or resized.

A difference hash (ImageHash) of each picture and of its mirror image finds candidates; their pixels decide. The work
grows with the number of pictures, not with that of all pairs. For 60,000 pictures of 32 pixels it takes 2.5 s of
one core, of 12 s for all of the preparation.
"""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cifar_tasks.data.images import Images
from cifar_tasks.data.splits import Indices

Thumbnails = NDArray[np.uint8]
"""N × 8 × 9, grey: what a difference hash of 64 bits looks at."""
Hashes = NDArray[np.uint64]
"""N × 2: of each picture and of its mirror image."""

BANDS, BAND_BITS = 4, 16
"""Candidates agree in one of the parts of the 64 bits: 98 % of pictures of CIFAR-10 do with a JPEG copy of quality 50,
99.9 % with one of quality 90 (n = 1,500)."""
MAX_BITS = 8
"""In which the hashes of candidates differ."""
NEIGHBOURS = 32
"""Of pictures that agree in a part, so many are compared with each: plain backgrounds may make thousands agree."""
MAX_CANDIDATES, MAX_COMPARED_BYTES = 10_000, 2**30
MAX_LEVELS, MAX_SHARE = 8.0, 0.25
"""Mean difference of two copies in half the resolution, where JPEG and resizing leave less noise: of 255 levels, and
of the contrast of the picture. 98 % of pictures of CIFAR-10 differ from a JPEG copy of quality 50 by at most 6.5 levels
and 0.24, from a copy that was 24 pixels wide by 3.8 and 0.10 (n = 400). Of 6,000 that are no copies the nearest ones
differ from one of 8,000 others by 7.8 levels."""


def thumbnails(images: Images) -> Thumbnails:
    """Averages over the cells of a grid."""
    rows, columns = (_cells(images.shape[1], count) for count in (8, 9))
    grey = images @ np.array([0.299, 0.587, 0.114], np.float32)
    return np.rint(rows @ grey @ columns.T).astype(np.uint8)


@cache
def _cells(size: int, count: int) -> NDArray[np.float32]:
    """The share of each of `size` pixels in each of `count` cells."""
    edges, pixels = np.linspace(0, size, count + 1), np.arange(size)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    share: NDArray[np.float32] = (np.maximum(overlap, 0) * count / size).astype(np.float32)
    return share


class NearDuplicates(NamedTuple):
    pairs: list[tuple[int, int]]
    """Positions, the lower one first."""
    complete: bool
    """False if there were too many candidates to look at all of them."""


def near_duplicates(thumbs: Thumbnails, positions: Indices, read: Callable[[Indices], Images]) -> NearDuplicates:
    """Among `positions`, in which no two pictures are equal; `read` gives the pictures at positions."""
    candidates = positions[_candidates(difference_hashes(thumbs[positions]))]
    return _compared(candidates, lambda one, other: read(np.array([one, other])))


def near_copies(originals: Hashes, others: Hashes, read: Callable[[int, int], Images]) -> NearDuplicates:
    """Pairs of one of the originals and one of the others: positions in each; `read` gives the two pictures."""
    is_original = np.arange(len(originals) + len(others)) < len(originals)
    candidates = _candidates(np.concatenate([originals, others]), is_original)
    return _compared(candidates - np.array([0, len(originals)]), read)


def _compared(candidates: Indices, read: Callable[[int, int], Images]) -> NearDuplicates:
    """Those whose pixels agree."""
    complete = len(candidates) < MAX_CANDIDATES
    found = set()
    compared = 0
    for first, second in candidates.tolist():
        pair = read(first, second)
        compared += pair.nbytes
        if compared > MAX_COMPARED_BYTES:
            complete = False
            break
        one, other = _halved(pair)
        limit = min(MAX_LEVELS, MAX_SHARE * float(np.abs(one - one.mean((0, 1))).mean()))
        if min(np.abs(one - other).mean(), np.abs(one - other[:, ::-1]).mean()) <= limit:
            found.add((first, second))
    return NearDuplicates(sorted(found), complete)


def _halved(images: Images) -> NDArray[np.float32]:
    """Averages over cells of two by two pixels."""
    share = _cells(images.shape[1], images.shape[1] // 2)
    halved: NDArray[np.float32] = np.einsum("ry,nyxc,qx->nrqc", share, images.astype(np.float32), share, optimize=True)
    return halved


def difference_hashes(thumbs: Thumbnails) -> Hashes:
    bits = [
        imagehash.dhash(Image.fromarray(each)).hash
        for thumb in thumbs
        for each in (thumb, np.ascontiguousarray(thumb[:, ::-1]))
    ]
    return np.packbits(np.array(bits, bool).reshape(-1, 64), axis=1).view(np.uint64).reshape(-1, 2)


def _candidates(hashes: Hashes, is_original: NDArray[np.bool_] | None = None) -> Indices:
    """P × 2 different rows, the most similar ones first; with `is_original` one of the two is, and stands first."""
    count = len(hashes)
    both = hashes.T.ravel()  # those of the mirror images behind the others
    shift = np.uint64(64 - BAND_BITS)
    pairs = np.empty(0, np.int64)  # each as one number: differing bits, lower row, higher row
    for band in range(BANDS):
        turned = np.roll(both.view(np.uint16).reshape(-1, 4), band, axis=1).copy().view(np.uint64)[:, 0]
        order = np.argsort(turned)
        ordered, rows = turned[order], order % count
        for step in range(1, min(NEIGHBOURS, len(order) - 1) + 1):
            bits = np.bitwise_count(ordered[:-step] ^ ordered[step:])
            close = (ordered[:-step] >> shift == ordered[step:] >> shift) & (bits <= MAX_BITS)
            close &= rows[:-step] != rows[step:]
            if is_original is not None:
                close &= is_original[rows[:-step]] != is_original[rows[step:]]
            one, other = rows[:-step][close], rows[step:][close]
            low, high = np.minimum(one, other), np.maximum(one, other)
            found = (bits[close].astype(np.int64) * count + low) * count + high
            pairs = np.unique(np.concatenate([pairs, found]))[:MAX_CANDIDATES]
    return np.stack([pairs // count % count, pairs % count], axis=1)
