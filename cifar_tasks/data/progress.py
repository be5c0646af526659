"""A line of progress every few seconds, however long one file takes."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cifar_tasks.data.images import Report

REPORT_SECONDS = 5.0


@contextmanager
def progress(report: Report, state: Callable[[], str]) -> Iterator[None]:
    """Reports `state` in a thread of its own while the context lasts."""
    ended = threading.Event()

    def work() -> None:
        while not ended.wait(REPORT_SECONDS):
            report(state())

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
