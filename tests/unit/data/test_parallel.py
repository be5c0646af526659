"""A thread pool that does not run far ahead."""

import time
from collections.abc import Iterator

import pytest

from cifar_tasks.data import parallel
from cifar_tasks.data.parallel import MemoryBudget, bounded_map
from tests.waiting import wait_until


def test_results_come_in_the_order_of_the_items() -> None:
    assert list(bounded_map(lambda number: number * number, range(100), 3)) == [n * n for n in range(100)]


def test_few_items_are_taken_ahead_of_the_consumer() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    results = bounded_map(str, items(), 3)
    assert next(results) == "0"
    assert len(taken) == 6
    results.close()


def test_large_items_are_taken_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "AHEAD_BYTES", 100)
    taken: list[int] = []

    def items() -> Iterator[int]:
        for size in (60, 30, 200, 50, 50, 10):
            taken.append(size)
            yield size

    results = bounded_map(lambda size: size, items(), 3, lambda size: size)
    seen = [(result, len(taken)) for result in results]
    assert [result for result, _ in seen] == [60, 30, 200, 50, 50, 10]
    assert [count for _, count in seen] == [3, 3, 4, 6, 6, 6]


@pytest.mark.parametrize(("needed", "together"), [(10, 4), (50, 2), (60, 1), (1000, 1)])
def test_threads_share_a_budget(needed: int, together: int) -> None:
    budget, inside, most = MemoryBudget(100), list[int](), list[int]()

    def work(number: int) -> None:
        with budget.taken(needed):
            inside.append(number)
            most.append(len(inside))
            wait_until(lambda: max(most) >= together)  # all that fit are inside at once
            time.sleep(0.05)  # nor does another one come in
            inside.remove(number)

    list(bounded_map(work, range(8), 4))
    assert max(most) == together


def test_what_waits_is_not_started_after_an_error() -> None:
    started: list[int] = []

    def work(number: int) -> None:
        started.append(number)
        if number == 0:
            raise ValueError("0")
        time.sleep(1)

    with pytest.raises(ValueError, match="0"):
        list(bounded_map(work, range(100), 2))
    assert 3 not in started  # item 1 and item 2 run, item 3 waits for one of them
