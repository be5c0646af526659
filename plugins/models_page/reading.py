"""What the page shows, read from MLflow and S3 through their public APIs and kept in memory for a few seconds."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
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

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Reading(Generic[T]):
    value: T
    problem: str | None = None
    """Why the value is an old one."""


class Kept(Generic[P, T]):
    """A function whose last results are kept, and returned while they are fresh or the servers are away."""

    def __init__(self, read: Callable[P, T]) -> None:
        self._read = read
        self._results: dict[object, tuple[float, datetime, T]] = {}
        self._lock = Lock()

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Reading[T]:
        """Raises what the function raises if there is no earlier result."""
        key = (args, tuple(kwargs.items()))
        with self._lock:  # of many readers at once one reads
            found = self._results.get(key)
            if found and time.monotonic() - found[0] < FRESH_SECONDS:
                return Reading(found[2])
            try:
                value = self._read(*args, **kwargs)
            except (StorageError, TrackingError) as error:
                if found is None:
                    raise
                return Reading(found[2], f"{error} Shown is what was read at {found[1]:%H:%M:%S} UTC.")
            self._results[key] = time.monotonic(), datetime.now(UTC), value
            return Reading(value)

    def forget(self) -> None:
        self._results.clear()


def mlflow_client() -> "MlflowClient":
    from cifar_tasks.tracking import runs

    os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = str(PATIENCE_SECONDS)
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
    return runs.mlflow_client()


def store() -> S3Store:
    return S3Store(Settings().bucket, s3_client(attempts=1, read_timeout=PATIENCE_SECONDS))
