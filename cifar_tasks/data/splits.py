"""The validation split: exact, stratified and seeded, with equal images on one side."""

import numpy as np
from numpy.typing import NDArray

from cifar_tasks.data.images import Labels
from cifar_tasks.errors import ConfigError, DataError

Indices = NDArray[np.int64]


def split_indices(
    labels: Labels, fraction: float, seed: int, groups: NDArray[np.int64] | None = None
) -> tuple[Indices, Indices]:
    """Splits positions into (kept, held out), both sorted.

    `round(fraction * N)` are held out, of each class in proportion, of every class at least one on either side.
    Images of one class with the same value in `groups` stay together. Written by hand because scikit-learn's stratified
    splitters either ignore groups or miss the exact count.
    """
    if not 0 < fraction < 1:
        raise ConfigError(f"the fraction to hold out must lie between 0 and 1, got {fraction}")
    classes, counts = np.unique(labels, return_counts=True)
    if counts.min() < 2:
        raise DataError(f"class {classes[counts.argmin()]} has one image: a split needs at least 2 of each class")
    groups = np.arange(len(labels)) if groups is None else groups
    random = np.random.default_rng(seed)
    held_out = np.zeros(len(labels), dtype=bool)
    for label, quota in zip(classes, _quotas(counts, fraction), strict=True):
        members = np.flatnonzero(labels == label)
        held_out[_draw(members, groups[members], int(quota), random)] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def _quotas(counts: Indices, fraction: float) -> Indices:
    """How many of each class to hold out: largest remainders, within 1 … count - 1."""
    total = int(np.clip(round(fraction * counts.sum()), len(counts), counts.sum() - len(counts)))
    ideal = counts * (total / counts.sum())
    quotas: Indices = np.clip(np.floor(ideal), 1, counts - 1).astype(np.int64)
    while quotas.sum() < total:
        quotas[np.argmax(np.where(quotas < counts - 1, ideal - quotas, -np.inf))] += 1
    while quotas.sum() > total:
        quotas[np.argmin(np.where(quotas > 1, ideal - quotas, np.inf))] -= 1
    return quotas


def _draw(members: Indices, groups: Indices, quota: int, random: np.random.Generator) -> Indices:
    """`quota` of the members, group by group in random order; a group that does not fit any more is passed over.

    Only when nothing but larger groups is left is one of them cut, so that the count is still met.
    """
    _, group_of, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    chosen = np.zeros(len(sizes), dtype=bool)
    room = quota
    for group in random.permutation(len(sizes)):
        if sizes[group] <= room:
            chosen[group] = True
            room -= int(sizes[group])
        if room == 0:
            break
    drawn = members[chosen[group_of]]
    rest = members[~chosen[group_of]]
    return np.concatenate([drawn, rest[:room]])
