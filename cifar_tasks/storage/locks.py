"""A lock on a file of this machine that many processes fetch, with an end to the waiting."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from cifar_tasks.errors import StorageError

LOCK_SECONDS = 1800.0
"""Longer than any download takes. The lock of a process that ends is free at once."""


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """One process at a time; `StorageError` if another one holds the lock for half an hour."""
    lock = FileLock(f"{path}.lock", timeout=LOCK_SECONDS)
    try:
        lock.acquire()
    except Timeout:
        raise StorageError(
            f"another process has held {lock.lock_file} for {LOCK_SECONDS:g} s. End that process, then try again."
        ) from None
    try:
        yield
    finally:
        lock.release()
