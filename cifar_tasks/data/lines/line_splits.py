"""Which new images of a line are held out for validation. Their pixels alone decide, so that no version moves one."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence


def rank(digest: str, seed: int) -> float:
    """From 0 to 1: an order of images that their pixels alone decide."""
    drawn = hashlib.blake2b(f"{seed}/{digest}".encode(), digest_size=8).digest()
    return int.from_bytes(drawn) / 2**64


def held_out(
    new: Sequence[tuple[str, int]],
    earlier: Mapping[str, str],
    trained: Mapping[int, set[str]],
    validated: set[int],
    pinned: frozenset[str],
    seed: int,
    fraction: float,
) -> tuple[list[bool], frozenset[str]]:
    """For each new image, by digest and label, whether it is a validation image; and the digests that are pinned.

    `earlier`: the split of each digest that the version has already. A class of which nothing would be held out gets
    the new image of the lowest rank, which stays pinned. `trained`: digests by class; `validated`: classes that have
    a validation image.
    """

    def drawn(digest: str) -> bool:
        if digest in earlier:
            return earlier[digest] == "validation"
        return digest in pinned or rank(digest, seed) < fraction

    fresh: dict[int, set[str]] = defaultdict(set)
    for digest, label in new:
        if digest not in earlier:
            fresh[label].add(digest)
    covered = validated | {label for digest, label in new if drawn(digest)}
    for label, digests in sorted(fresh.items()):
        if label not in covered and len(digests | trained.get(label, set())) > 1:
            pinned |= {min(digests, key=lambda digest: rank(digest, seed))}
    return [drawn(digest) for digest, _ in new], pinned
