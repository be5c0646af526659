import numpy as np
import pytest

from cifar_tasks.data.splits import split_indices
from cifar_tasks.errors import ConfigError, DataError


def test_fifty_thousand_of_ten_classes_become_45000_and_5000_with_500_of_each() -> None:
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(10), 5000))
    kept, held_out = split_indices(labels, 0.1, seed=0)
    assert (len(kept), len(held_out)) == (45_000, 5_000)
    assert np.bincount(labels[held_out]).tolist() == [500] * 10
    assert sorted([*kept, *held_out]) == list(range(50_000))


def test_the_seed_alone_decides() -> None:
    labels = np.repeat(np.arange(3), 40)
    first, again, other = (split_indices(labels, 0.25, seed)[1] for seed in (7, 7, 8))
    assert (first == again).all()
    assert (first != other).any()


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.33, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("counts", [(2, 2), (2, 3, 500), (7, 11, 13, 17), (2,) * 30, (1000, 10)])
def test_the_count_is_exact_and_every_class_stands_on_both_sides(fraction: float, counts: tuple[int, ...]) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    kept, held_out = split_indices(labels, fraction, seed=0)
    lowest, highest = len(counts), len(labels) - len(counts)
    assert len(held_out) == min(max(round(fraction * len(labels)), lowest), highest)
    assert set(labels[kept]) == set(labels[held_out]) == set(range(len(counts)))
    assert np.bincount(np.concatenate([kept, held_out])).tolist() == [1] * len(labels)


@pytest.mark.parametrize(
    ("counts", "fraction", "shares"),
    [
        ((600, 300, 100), 0.1, [60, 30, 10]),
        ((7, 11, 13, 17), 0.33, [2, 4, 4, 6]),  # of 2.3, 3.7, 4.3, 5.7
        ((11, 39), 0.1, [1, 4]),  # of 1.1, 3.9
        ((2, 2, 2, 2, 60, 100), 0.1, [1, 1, 1, 1, 4, 9]),  # large classes give what small ones take
        ((2, 2, 6), 0.8, [1, 1, 5]),
    ],
)
def test_shares_follow_the_classes(counts: tuple[int, ...], fraction: float, shares: list[int]) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    _, held_out = split_indices(labels, fraction, seed=0)
    assert np.bincount(labels[held_out]).tolist() == shares


@pytest.mark.parametrize("seed", range(20))
def test_equal_images_stay_together_and_the_count_is_still_exact(seed: int) -> None:
    labels = np.repeat(np.arange(2), 50)
    groups = np.arange(100)
    groups[[3, 14, 40]] = 3
    groups[[60, 61]] = 60
    _, held_out = split_indices(labels, 0.2, seed, groups)
    assert len(held_out) == 20
    for group in (3, 60):
        members = np.flatnonzero(groups == group)
        assert np.isin(members, held_out).sum() in (0, len(members))


def test_a_class_of_equal_images_stays_whole() -> None:
    labels = np.repeat(np.arange(2), 10)
    groups = np.where(labels == 0, 0, np.arange(20))
    kept, held_out = split_indices(labels, 0.2, 0, groups)
    assert np.bincount(labels[held_out], minlength=2).tolist() == [0, 2]
    assert np.bincount(labels[kept]).tolist() == [10, 8]


@pytest.mark.parametrize("seed", range(20))
def test_equal_images_of_several_classes_stay_together(seed: int) -> None:
    """100 images that are in `cat` and in `dog`, and 20 others of each."""
    labels = np.repeat(np.arange(2), 120)
    groups = np.concatenate([np.arange(100), np.arange(100, 120), np.arange(100), np.arange(120, 140)])
    kept, held_out = split_indices(labels, 0.1, seed, groups)
    assert not set(groups[kept]) & set(groups[held_out])
    assert np.bincount(labels[held_out]).tolist() == [12, 12]


@pytest.mark.parametrize("seed", range(10))
def test_groups_of_all_kinds_never_stand_on_both_sides(seed: int) -> None:
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(5), random.integers(2, 60, 5))
    groups = random.integers(0, random.integers(2, 300), len(labels))
    kept, held_out = split_indices(labels, 0.3, seed, groups)
    assert not set(groups[kept]) & set(groups[held_out])
    assert set(labels[kept]) == set(labels)


def test_pairs_of_equal_images_are_held_out_although_the_quota_is_one() -> None:
    labels, groups = np.repeat(np.arange(2), 6), np.arange(12) // 2
    _, held_out = split_indices(labels, 0.1, 0, groups)
    assert np.bincount(labels[held_out]).tolist() == [2, 2]


def test_repeated_images_are_held_out_in_proportion() -> None:
    labels, groups = np.repeat(np.arange(2), 1000), np.arange(2000)
    groups[:400] //= 2
    held_out = [split_indices(labels, 0.1, seed, groups)[1] for seed in range(20)]
    assert np.mean([(part < 400).sum() for part in held_out]) == pytest.approx(40, rel=0.2)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 2.0])
def test_an_impossible_fraction_is_refused(fraction: float) -> None:
    with pytest.raises(ConfigError, match=f"got {fraction}"):
        split_indices(np.repeat(np.arange(2), 5), fraction, 0)


def test_a_class_with_one_image_is_refused() -> None:
    with pytest.raises(DataError, match="class 1 has one image"):
        split_indices(np.array([0, 0, 1]), 0.5, 0)
