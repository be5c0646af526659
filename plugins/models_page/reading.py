"""What the page shows, read from MLflow and S3 through their public APIs and kept in memory for a few seconds."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from threading import Lock
from typing import TYPE_CHECKING, Generic, Literal, ParamSpec, TypeVar

from cifar_tasks.errors import CifarError, DiskError, StorageError, TrackingError, TrackingGone
from cifar_tasks.settings import Settings
from cifar_tasks.storage.s3 import S3Store, s3_client

if TYPE_CHECKING:
    from mlflow import MlflowClient

FRESH_SECONDS = 5.0
"""A reload within this time reads nothing."""
MLFLOW_PATIENCE, S3_PATIENCE = 2, 0.7
"""Seconds for one request: the page says within 3 s that a server is away, or both."""
AWAY_SECONDS = 5.0
"""A server that did not answer is not asked again within this time, so that a page waits for it only once."""

MAX_ENTRIES = 1_000
"""Of each function; the oldest goes first."""

Server = Literal["MLflow", "S3"]

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


_away: dict[Server, tuple[float, CifarError]] = {}
"""Monotonic time and error of the last request, of the servers that did not answer it."""


@contextmanager
def asking(server: Server) -> Iterator[None]:
    """Raises at once what it raised before if the server was away a moment ago."""
    asked, before = _away.get(server, (0.0, None))
    if before is not None and time.monotonic() - asked < AWAY_SECONDS:
        raise type(before)(str(before))
    try:
        yield
    except (StorageError, TrackingError) as error:
        if error.retryable and not isinstance(error, DiskError | TrackingGone):
            _away[server] = time.monotonic(), error
        raise
    _away.pop(server, None)


class Problems(list[str]):
    """Why a page shows old values, or lacks some."""

    def value_of(self, read: "Callable[[], Result[T]]", otherwise: T) -> T:
        """What was read; `otherwise` if the server is away and nothing was read before."""
        try:
            found = read()
        except (StorageError, TrackingError) as error:
            found = Result(otherwise, str(error))
        if found.problem and found.problem not in self:
            self.append(found.problem)
        return found.value


class Cached(Generic[P, T]):
    """A function whose results are cached, and returned while they are fresh or its server is away."""

    def __init__(self, server: Server, read: Callable[P, T], key: Callable[P, object] | None = None) -> None:
        """`key` identifies arguments that cannot be a key themselves."""
        self._server, self._read, self._key = server, read, key
        self._entries: dict[object, _Entry[T]] = {}
        self._lock = Lock()

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Result[T]:
        """Raises what the function raises if there is no earlier result."""
        key = self._key(*args, **kwargs) if self._key else (args, tuple(kwargs.items()))
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
            with asking(self._server):
                return _Entry(time.monotonic(), datetime.now(UTC), self._read(*args, **kwargs))
        except (StorageError, TrackingError) as error:
            if earlier is None:
                raise
            return replace(earlier, tried=time.monotonic(), error=str(error))


def mlflow_client() -> "MlflowClient":
    from cifar_tasks.tracking import runs

    os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = str(MLFLOW_PATIENCE)
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
    return runs.mlflow_client(patience=0)


def store() -> S3Store:
    return S3Store(Settings().bucket, s3_client(attempts=1, read_timeout=S3_PATIENCE))
