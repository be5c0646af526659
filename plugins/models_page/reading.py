"""What the page shows, read from MLflow and S3 through their public APIs and kept in memory for a few seconds."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from threading import Lock
from typing import TYPE_CHECKING, Generic, ParamSpec, TypeVar

from cifar_tasks.errors import StorageError, TrackingError
from cifar_tasks.settings import Settings
from cifar_tasks.storage.s3 import S3Store, s3_client

if TYPE_CHECKING:
    from mlflow import MlflowClient

FRESH_SECONDS = 5.0
"""A reload within this time reads nothing."""
PATIENCE_SECONDS = 2
"""For one request to MLflow or S3: the page says within 3 s that a server is away."""

MAX_ENTRIES = 1_000
"""Of each function; the oldest goes first."""

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Result(Generic[T]):
    value: T
    problem: str | None = None
    """Why the value is an old one."""


@dataclass(frozen=True)
class _Entry(Generic[T]):
    tried: float
    """Monotonic time of the last attempt."""
    read: datetime
    value: T
    error: str | None = None
    """Of the last attempt, if it failed."""


class Cached(Generic[P, T]):
    """A function whose results are cached, and returned while they are fresh or the servers are away."""

    def __init__(self, read: Callable[P, T]) -> None:
        self._read = read
        self._entries: dict[object, _Entry[T]] = {}
        self._lock = Lock()

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Result[T]:
        """Raises what the function raises if there is no earlier result."""
        key = (args, tuple(kwargs.items()))
        with self._lock:  # of many readers at once one reads, and one waits for a server that is away
            entry = self._entries.get(key)
            if entry is None or time.monotonic() - entry.tried >= FRESH_SECONDS:
                entry = self._entries[key] = self._try(entry, *args, **kwargs)
                if len(self._entries) > MAX_ENTRIES:
                    self._entries.pop(next(iter(self._entries)))
        if entry.error is None:
            return Result(entry.value)
        return Result(entry.value, f"{entry.error} Shown is what was read at {entry.read:%H:%M:%S} UTC.")

    def clear(self) -> None:
        self._entries.clear()

    def _try(self, earlier: _Entry[T] | None, *args: P.args, **kwargs: P.kwargs) -> _Entry[T]:
        try:
            return _Entry(time.monotonic(), datetime.now(UTC), self._read(*args, **kwargs))
        except (StorageError, TrackingError) as error:
            if earlier is None:
                raise
            return replace(earlier, tried=time.monotonic(), error=str(error))


def mlflow_client() -> "MlflowClient":
    from cifar_tasks.tracking import runs

    os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = str(PATIENCE_SECONDS)
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
    return runs.mlflow_client()


def store() -> S3Store:
    return S3Store(Settings().bucket, s3_client(attempts=1, read_timeout=PATIENCE_SECONDS))
