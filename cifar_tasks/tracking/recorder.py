"""What is kept of a training while it runs: checkpoints in storage, numbers with the trackers, lines in the log."""

import logging
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from types import TracebackType
from typing import Protocol, Self

from cifar_tasks.storage.checkpoints import newest_checkpoint, save_checkpoint
from cifar_tasks.storage.s3 import ObjectStore
from cifar_tasks.tracking.tracker import Tracker
from cifar_tasks.training import EpochMetrics, Progress, TrainingState, distributed

_log = logging.getLogger(__name__)


class Follower(Protocol):
    """Hears of one part of a training, within a context of its own."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def resume(self, state: TrainingState) -> None:
        """Fill `state` with what an earlier try left, if there is any."""

    def epoch_done(self, state: TrainingState) -> None:
        """For `fit`."""

    def progress(self, now: Progress) -> None:
        """For `fit`."""


class Recorder:
    """Follows one training; a context that leaves only when everything is written.

    Writing happens beside the training, in one thread: an epoch's checkpoint first, then its numbers, so that trackers
    never show an epoch that a retry would train again. What fails there is raised at the end of the next epoch.
    """

    def __init__(
        self, store: ObjectStore, prefix: str, trackers: Sequence[Tracker], run_id: str, label: str = ""
    ) -> None:
        """`run_id` is the MLflow run's; `label` precedes all names, for a training that is one part of a whole."""
        self.store, self.prefix, self.trackers = store, f"{prefix}/{label}epochs", trackers
        self.run_id, self.label = run_id, label
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="recorder")
        self._writing: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.shutdown()
        if kind is None:
            self._written()

    def resume(self, state: TrainingState) -> None:
        """Fill `state` from the newest checkpoint that is whole, if an earlier try left one."""
        data = newest_checkpoint(self.store, self.prefix)
        if data is None:
            return
        state.load_bytes(data)
        _log.info("resuming after epoch %d", len(state.history))
        # A try that was killed between the two writes left a checkpoint whose epoch the trackers do not show yet.
        for metrics in state.history:
            self._track(metrics)

    def epoch_done(self, state: TrainingState) -> None:
        """For `fit`. Takes a copy of the state and writes it while the next epoch trains.

        Of several processes that train together only the first one does.
        """
        if distributed.rank() > 0:
            return
        metrics = state.history[-1]
        _log.info(
            "%sepoch %d/%d  train loss %.4f acc %.2f %%  validation loss %.4f acc %.2f %%  %.0f images/s",
            self.label,
            metrics.epoch,
            state.config.epochs,
            metrics.train_loss,
            100 * metrics.train_accuracy,
            metrics.validation_loss,
            100 * metrics.validation_accuracy,
            metrics.images_per_second,
        )
        self._written()
        self._writing = self._writer.submit(self._write, metrics, state.to_bytes(mlflow_run_id=self.run_id))

    def progress(self, now: Progress) -> None:
        """For `fit`."""
        _log.info(
            "%sepoch %d %3.0f %%  loss %.4f  %.0f images/s",
            self.label,
            now.epoch,
            100 * now.step / now.steps,
            now.loss,
            now.images_per_second,
        )

    def _write(self, metrics: EpochMetrics, checkpoint: bytes) -> None:
        save_checkpoint(self.store, self.prefix, metrics.epoch, checkpoint)
        self._track(metrics)

    def _track(self, metrics: EpochMetrics) -> None:
        numbers = {name: value for name, value in asdict(metrics).items() if name != "epoch"}
        for tracker in self.trackers:
            tracker.log_epoch(metrics.epoch, numbers, self.label)

    def _written(self) -> None:
        if self._writing is not None:
            self._writing.result()
