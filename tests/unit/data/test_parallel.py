"""A thread pool that does not run far ahead."""

import time
from collections.abc import Iterator

import pytest

from cifar_tasks.data.parallel import bounded_map


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


def test_what_waits_is_not_started_after_an_error() -> None:
    started: list[int] = []

    def work(number: int) -> None:
        started.append(number)
        if number == 0:
            raise ValueError("0")
        time.sleep(0.2)

    with pytest.raises(ValueError, match="0"):
        list(bounded_map(work, range(100), 2))
    assert 3 not in started  # item 1 and item 2 run, item 3 waits for one of them
