"""Every error that this product raises on purpose.

A message says what is wrong, where, and what to do about it, in one or two lines. `retryable` is what a task runner
asks: a lost connection may work the next time, a bad configuration never will.
"""


class CifarError(Exception):
    """Base of all. Printed by the `cifar` command as it is, without a traceback."""

    retryable = False


class ConfigError(CifarError):
    """A value that the user gave is not usable."""


class PayloadError(CifarError):
    """A step was given, or returned, a value that its annotations do not allow."""


class DataError(CifarError):
    """The images are not what a dataset must be."""


class WeightsError(CifarError):
    """Pretrained weights are not available or are not the expected ones."""


class IntegrityError(CifarError):
    """Stored content does not have the digest it was written with, or a saved model does not score as it did."""


class TrainingError(CifarError):
    """Training cannot go on, and the same training would fail again (the loss is not finite)."""


class SearchError(CifarError):
    """A search for parameters has no result that could be trusted."""


class StackError(CifarError):
    """The embedded stack cannot be started, reached or stopped."""


class StorageError(CifarError):
    """Object storage, or the disk of this machine, did not answer or refused."""

    retryable = True


class TrackingError(CifarError):
    """The MLflow server did not answer or refused."""

    retryable = True


class SourceUnreachable(CifarError):
    """The place that the data comes from did not answer."""

    retryable = True


class WorkerLost(CifarError):
    """The process that did the work ended without a result."""

    retryable = True


class LeaseLost(CifarError):
    """The work may have been taken over by another process; this one must leave it alone."""

    retryable = True


class Stopped(BaseException):
    """The step was told to stop. Not an `Exception`: nothing that handles failures may swallow it."""
