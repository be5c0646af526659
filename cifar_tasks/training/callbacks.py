"""How code outside of this room takes part in a training: callbacks of one protocol.

Checkpoints, the lease, MLflow, Weights & Biases, pruning and the log are such callbacks.
"""

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Self

from cifar_tasks.config import TrainConfig
from cifar_tasks.training.state import EpochMetrics, TrainingState

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """The position of training within an epoch."""

    label: str
    """As in `Snapshot`."""
    epoch: int
    step: int
    steps: int
    loss: float
    learning_rate: float
    images_per_second: float


@dataclass(frozen=True)
class Snapshot:
    """A training at the end of an epoch. It stays the same while training continues."""

    label: str
    """Of a part that counts its own epochs: `head_`. Empty for the training of the whole network."""
    config: TrainConfig
    history: tuple[EpochMetrics, ...]
    """The last entry is the epoch that has ended."""
    best: EpochMetrics
    finished: bool
    """Whether no epoch follows."""
    _state: TrainingState = field(repr=False)
    _step: int

    @classmethod
    def of(cls, state: TrainingState) -> Self:
        history = tuple(state.history)
        return cls(state.label, state.config, history, state.best, state.finished, state, state.steps_done)

    @cached_property
    def checkpoint(self) -> bytes:
        """`TrainingState.to_bytes`, made on first access. That must happen before `on_epoch_end` returns."""
        if self._state.steps_done != self._step:
            raise RuntimeError("the checkpoint of an epoch was first read after training had continued")
        return self._state.to_bytes()


class Callback:
    """What a training calls, in the order in which callbacks are given to it. Every method may raise to end it.

    A training with `head_epochs` has two parts, each with a state of its own. The first, with the label `head_`, lies
    between `on_train_start` and the first epoch of the second, which has no label.
    """

    def on_train_start(self, state: TrainingState) -> None:
        """Before the first epoch. May fill `state` from a checkpoint; callbacks after this one see its history."""

    def on_step(self, progress: Progress) -> None:
        """After a step: at most once per log interval, because reading the loss waits for the GPU, and at the last."""

    def on_epoch_end(self, snapshot: Snapshot) -> None:
        """After each epoch."""

    def on_train_end(self, state: TrainingState, error: BaseException | None) -> None:
        """After the last epoch, with the best weights restored, or after `error`.

        Called for every callback whose `on_train_start` has returned.
        """


@contextmanager
def running(callbacks: Sequence[Callback], state: TrainingState) -> Iterator[None]:
    """`on_train_start` of all callbacks, the context, then `on_train_end`, both in the given order.

    The first error, of the context or of a callback, is passed to all `on_train_end` that follow and raised at the end.
    """
    started: list[Callback] = []
    error: BaseException | None = None
    try:
        for callback in callbacks:
            callback.on_train_start(state)
            started.append(callback)
        yield
    except BaseException as raised:
        error = raised
    for callback in started:
        try:
            callback.on_train_end(state, error)
        except BaseException as raised:
            if error not in (None, raised):
                _log.warning("%s failed as well: %s", type(callback).__name__, raised)
            error = error or raised
    if error is not None:
        raise error


class LogProgress(Callback):
    """One line in the log per log interval and per epoch."""

    def on_step(self, progress: Progress) -> None:
        _log.info(
            "%sepoch %d %3.0f %%  loss %.4f  %.0f images/s",
            progress.label,
            progress.epoch,
            100 * progress.step / progress.steps,
            progress.loss,
            progress.images_per_second,
        )

    def on_epoch_end(self, snapshot: Snapshot) -> None:
        metrics = snapshot.history[-1]
        _log.info(
            "%sepoch %d/%d  train loss %.4f acc %.2f %%  validation loss %.4f acc %.2f %%  %.0f images/s",
            snapshot.label,
            metrics.epoch,
            snapshot.config.epochs,
            metrics.train_loss,
            100 * metrics.train_accuracy,
            metrics.validation_loss,
            100 * metrics.validation_accuracy,
            metrics.images_per_second,
        )


class BackgroundWriter(Callback):
    """Calls `on_epoch_end` of its callbacks in one thread, in the given order, while the next epoch trains.

    At most one epoch waits. What fails in the thread is raised at the end of the next epoch or of the training. The end
    of a training waits for the thread, also after an error. `on_step` of its callbacks is not called.
    """

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        self._callbacks = callbacks
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="background-writer")
        self._writing: Future[None] = self._thread.submit(lambda: None)
        self._parts: list[ExitStack] = []

    def on_train_start(self, state: TrainingState) -> None:
        part = ExitStack()
        part.enter_context(running(self._callbacks, state))
        self._parts.append(part)

    def on_epoch_end(self, snapshot: Snapshot) -> None:
        self._writing.result()
        _ = snapshot.checkpoint  # copied here, before training changes the state
        self._writing = self._thread.submit(self._write, snapshot)

    def on_train_end(self, state: TrainingState, error: BaseException | None) -> None:  # noqa: ARG002
        with self._parts.pop():
            wait([self._writing])
            if error is not None:
                raise error
            self._writing.result()

    def _write(self, snapshot: Snapshot) -> None:
        for callback in self._callbacks:
            callback.on_epoch_end(snapshot)
