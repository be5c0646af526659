"""A trial while it trains, and what it leaves: the value of its own model and of no other."""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import asdict
from types import TracebackType
from typing import Self

from optuna import TrialPruned
from optuna.trial import Trial
from torch import Tensor

from cifar_tasks.tracking.tracker import Tracker
from cifar_tasks.training import Progress, TrainingState
from cifar_tasks.tuning.study import Trained

_log = logging.getLogger(__name__)


class TrialFollower:
    """Reports each epoch of a trial, and ends one that others are far ahead of. Leaves no checkpoints."""

    def __init__(self, trial: Trial, tracker: Tracker, seen: list[TrainingState], label: str) -> None:
        """The state of a training that is pruned is put into `seen`."""
        self.trial, self.tracker, self.seen, self.label = trial, tracker, seen, label

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Everything is written already."""

    def resume(self, state: TrainingState) -> None:
        """A trial that is tried again begins anew."""

    def epoch_done(self, state: TrainingState) -> None:
        metrics = state.history[-1]
        numbers = {name: value for name, value in asdict(metrics).items() if name != "epoch"}
        self.tracker.log_epoch(metrics.epoch, numbers, self.label)
        accuracy = 100 * metrics.validation_accuracy
        _log.info("trial %d: %sepoch %d  accuracy %.2f %%", self.trial.number, self.label, metrics.epoch, accuracy)
        if self.label:
            return
        self.trial.report(metrics.validation_accuracy, metrics.epoch)
        if not state.finished and self.trial.should_prune():
            self.seen.append(state)
            raise TrialPruned

    def progress(self, now: Progress) -> None:
        """Trials are short: their epochs are progress enough."""


def trained(state: TrainingState) -> Trained:
    """What the trial's own model gave, in the epoch that training would keep."""
    return Trained(state.best.validation_accuracy, state.best.validation_loss, weights_digest(state.best_weights))


def weights_digest(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of all values in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(weights[name].detach().cpu().contiguous().view(-1).numpy().tobytes())
    return digest.hexdigest()
