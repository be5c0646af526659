"""All errors that this product raises.

A message has one or two lines: what is wrong, where, and what to do about it. `retryable` decides whether Airflow
retries: a lost connection may work the next time, a bad configuration will not.
"""

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails


class CifarError(Exception):
    """Base class. The `cifar` command prints the message without a traceback."""

    retryable = False


class ConfigError(CifarError):
    """A value that the user gave is not usable."""


class PayloadError(CifarError):
    """A step was given, or returned, a value that its annotations do not allow."""


class DataError(CifarError):
    """The images cannot be used as a dataset."""


class SourceChanged(DataError):
    """The source was changed while it was read."""

    retryable = True


class NothingToTrain(CifarError):
    """The same was trained before. No failure: the run is skipped."""


class WeightsError(CifarError):
    """Pretrained weights are not available or are not the expected ones."""


class ModelSkipped(CifarError):
    """A model that the run does without, because its pretrained weights are not available."""


class IntegrityError(CifarError):
    """Stored content does not have the digest it was written with, or a saved model does not score as it did."""


class TrainingError(CifarError):
    """Training cannot continue, and a retry would fail in the same way (the loss is not finite)."""


class SearchError(CifarError):
    """A search for hyperparameters has no result that can be trusted."""


class StackError(CifarError):
    """The embedded stack cannot be started, reached or stopped."""


class StorageError(CifarError):
    """Object storage, the database of studies, or the disk of this machine did not do what was asked of it."""

    retryable = True


class DiskError(StorageError):
    """The disk of this machine is full, or nothing may be written there."""


class StorageRefused(StorageError):
    """Object storage, or the database of studies, refuses the request, or its address is wrong."""

    retryable = False


class TrackingError(CifarError):
    """The MLflow server did not respond, or refused the request."""

    retryable = True


class TrackingGone(TrackingError):
    """What was asked for was deleted in MLflow, or never there. MLflow itself does respond."""


class TrackingRefused(TrackingError):
    """The MLflow server refuses the request, or its address is wrong."""

    retryable = False


class SourceUnreachable(CifarError):
    """The host of the data did not respond."""

    retryable = True


class WorkerLost(CifarError):
    """The process of a step ended without a result."""

    retryable = True


class LeaseLost(CifarError):
    """Another process may have taken over the work of this one, which must stop."""

    retryable = True


class Stopped(BaseException):
    """The step received SIGTERM. Not an `Exception`, so that no handler of failures catches it."""


def problems(error: "ValidationError", name: Callable[[str], str] = str) -> list[str]:
    """`field: what is wrong, got VALUE`, of each value that pydantic refuses; `name` is how the user knows a field."""
    return [_problem(detail, name) for detail in error.errors()]


def _problem(detail: "ErrorDetails", name: Callable[[str], str]) -> str:
    message = detail["msg"].removeprefix("Value error, ")
    # Without a field it is the whole model, which may hold secrets.
    if detail["type"] != "missing" and (detail["loc"] or isinstance(detail["input"], str)):
        given = repr(detail["input"])
        message += f", got {given if len(given) <= 200 else f'{given[:200]}…'}"
    if not detail["loc"]:
        return message
    field, *inner = (str(part) for part in detail["loc"])
    return f"{'.'.join([name(field), *inner])}: {message}"


def nearest(word: str, known: Iterable[str], most: int = 1) -> str:
    """` (did you mean …?)`, or nothing if no known word is near."""
    words = {each.lower(): each for each in known}
    near = [words[each] for each in get_close_matches(word.lower(), words, n=most)]
    return f" (did you mean {' or '.join(near)}?)" if near else ""
