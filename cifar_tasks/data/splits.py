"""The validation split: stratified and seeded, with equal images on one side whatever their labels."""

import numpy as np
from numpy.typing import NDArray

from cifar_tasks.data.images import Labels
from cifar_tasks.errors import ConfigError, DataError

Indices = NDArray[np.int64]


def split_indices(
    labels: Labels, fraction: float, seed: int, groups: NDArray[np.int64] | None = None
) -> tuple[Indices, Indices]:
    """Splits positions into (kept, held out), both sorted.

    `round(fraction * N)` are held out, of each class in proportion, of every class at least one on either side. Images
    with the same value in `groups` stay together, also across classes; where they are many, fewer are held out, and
    none of a class whose images are all equal. Written by hand because scikit-learn's stratified splitters either
    ignore groups or miss the exact count.
    """
    if not 0 < fraction < 1:
        raise ConfigError(f"the fraction to hold out must lie between 0 and 1, got {fraction}")
    classes, class_of, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if counts.min() < 2:
        raise DataError(f"class {classes[counts.argmin()]} has one image: a split needs at least 2 of each class")
    draw = _Draw(class_of, counts, _quotas(counts, fraction))
    random = np.random.default_rng(seed)
    single, repeated = _by_group(np.arange(len(labels)) if groups is None else groups)
    order = random.permutation(len(repeated)).tolist() if repeated else list[int]()
    chance = random.random(len(repeated))
    for group in order:  # first their share, so that the part held out is neither full of them nor without
        draw.take(repeated[group], fits=chance[group] < fraction)
    for number in range(len(classes)):
        members = single[class_of[single] == number]
        draw.take_singles(members[random.permutation(len(members))], number)
    for group in order:
        draw.take(repeated[group])
    for members in sorted(repeated, key=len):
        draw.take_for_empty_class(members)
    return np.flatnonzero(~draw.held_out), np.flatnonzero(draw.held_out)


class _Draw:
    """What is held out so far."""

    def __init__(self, class_of: Indices, counts: Indices, quotas: Indices) -> None:
        self.held_out = np.zeros(len(class_of), dtype=bool)
        self._class_of = class_of
        self._room = quotas.copy()
        self._kept = counts.copy()
        self._empty = np.ones(len(counts), dtype=bool)

    def take(self, members: Indices, fits: bool = True) -> None:
        """A group, if each of its classes has room for it."""
        numbers, needed = np.unique(self._class_of[members], return_counts=True)
        if fits and not self.held_out[members[0]] and (needed <= self._room[numbers]).all():
            self._take(members, numbers, needed)

    def take_singles(self, members: Indices, number: int) -> None:
        chosen = members[: self._room[number]]
        if len(chosen):
            self._take(chosen, np.array([number]), np.array([len(chosen)]))

    def take_for_empty_class(self, members: Indices) -> None:
        """A group too large for a class of which nothing is held out, if each of its classes keeps another image."""
        numbers, needed = np.unique(self._class_of[members], return_counts=True)
        if self._empty[numbers].any() and not self.held_out[members[0]] and (needed < self._kept[numbers]).all():
            self._take(members, numbers, needed)

    def _take(self, members: Indices, numbers: Indices, needed: Indices) -> None:
        self.held_out[members] = True
        self._room[numbers] -= np.minimum(needed, self._room[numbers])
        self._kept[numbers] -= needed
        self._empty[numbers] = False


def _by_group(groups: Indices) -> tuple[Indices, list[Indices]]:
    """Positions that are alone in their group, and those of each larger group."""
    _, group_of, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.argsort(group_of, kind="stable")
    members = np.split(order, np.cumsum(sizes)[:-1])
    return np.flatnonzero(sizes[group_of] == 1), [members[group] for group in np.flatnonzero(sizes > 1)]


def _quotas(counts: Indices, fraction: float) -> Indices:
    """How many of each class to hold out: largest remainders, within 1 … count - 1."""
    total = int(np.clip(round(fraction * counts.sum()), len(counts), counts.sum() - len(counts)))
    ideal = counts * (total / counts.sum())
    quotas: Indices = np.maximum(np.floor(ideal), 1).astype(np.int64)
    while quotas.sum() < total:
        quotas[np.argmax(np.where(quotas < counts - 1, ideal - quotas, -np.inf))] += 1
    while quotas.sum() > total:
        quotas[np.argmin(np.where(quotas > 1, ideal - quotas, np.inf))] -= 1
    return quotas
