"""Threads that share a bounded amount of memory."""

import ctypes
import gc
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TypeVar

AHEAD_BYTES = 64 * 2**20
"""Of the items that wait for a thread or for the consumer."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def bounded_map(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    workers: int,
    size: Callable[[Item], int] = lambda _: 0,
) -> Iterator[Result]:
    """Like `Executor.map`, which holds all items and results in memory; here at most 2 per worker wait.

    `size`: bytes of an item or its result, whichever is larger; together `AHEAD_BYTES`, or one item.
    """
    waiting: deque[tuple[Future[Result], int]] = deque()
    ahead = 0
    pool = ThreadPoolExecutor(workers)
    try:
        for item in items:
            needed = size(item)
            while waiting and ahead + needed > AHEAD_BYTES:
                future, freed = waiting.popleft()
                ahead -= freed
                yield future.result()
            waiting.append((pool.submit(function, item), needed))
            ahead += needed
            del item  # the pool lets go of it when it is done
            if len(waiting) >= 2 * workers:
                future, freed = waiting.popleft()
                ahead -= freed
                yield future.result()
        while waiting:
            yield waiting.popleft()[0].result()
    finally:
        pool.shutdown(cancel_futures=True)


def return_freed_memory() -> None:
    """To the system. Each thread keeps what it freed, and a process of a step is told to keep it (`STEP_ENV`)."""
    with suppress(AttributeError):  # not every C library has the function
        ctypes.CDLL(None).malloc_trim(0)


@contextmanager
def without_collector() -> Iterator[None]:
    """For work on hundreds of thousands of small objects without cycles, which Python's collector would visit again
    and again: a third of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class MemoryBudget:
    """Bytes that threads share: each waits until there is room for what it needs."""

    def __init__(self, total: int) -> None:
        self._total = self._free = total
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, needed: int) -> Iterator[None]:
        """What needs more than there is gets all of it. It is given back to the system afterwards."""
        needed = min(needed, self._total)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= needed)
            self._free -= needed
        try:
            yield
        finally:
            if needed:
                return_freed_memory()
            with self._changed:
                self._free += needed
                self._changed.notify_all()
