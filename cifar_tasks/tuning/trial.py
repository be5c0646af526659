"""One trial of a study: its training reports to Optuna, and only the model that it trained gives its result."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from optuna import TrialPruned
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.trial import Trial
from sqlalchemy.exc import SQLAlchemyError
from torch import Tensor

from cifar_tasks.errors import LeaseLost, StorageError, TrackingError, TrainingError
from cifar_tasks.training.callbacks import Callback, Snapshot
from cifar_tasks.training.state import TrainingState
from cifar_tasks.tuning.study import TrialInterrupted, database_error


class TrialCallback(Callback):
    """Reports each epoch, prunes the trial, and records the result of its model. Leaves no checkpoints."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial

    def on_epoch_end(self, snapshot: Snapshot) -> None:
        if snapshot.label:  # the head alone, with epochs of its own
            return
        metrics = snapshot.history[-1]
        with _still_ours(self.trial):
            self.trial.report(metrics.validation_accuracy, metrics.epoch)
        if not snapshot.finished and self.trial.should_prune():
            raise TrialPruned(f"after epoch {metrics.epoch}")

    def on_train_end(self, state: TrainingState, error: BaseException | None) -> None:
        if not state.label and (error is None or isinstance(error, TrialPruned)):
            with _still_ours(self.trial):
                self.trial.set_user_attr("validation_loss", state.best.validation_loss)
                self.trial.set_user_attr("weights_sha256", weights_digest(state.best_weights))


@contextmanager
def _still_ours(trial: Trial) -> Iterator[None]:
    try:
        yield
    except UpdateFinishedTrialError as error:
        raise LeaseLost(f"trial {trial.number} was given to another worker.") from error


@contextmanager
def trial_errors(trial: Trial) -> Iterator[None]:
    """Tells a trial that fails by itself (`TrainingError`; the study notes why) from one that is interrupted.

    Lost are storage, MLflow, or the trial to another worker: the same trial may succeed later. Where a service refuses,
    no other trial would succeed either.
    """
    try:
        yield
    except TrialPruned:
        raise
    except (StorageInternalError, SQLAlchemyError) as error:
        raise TrialInterrupted(database_error(error)) from error
    except (Exception, KeyboardInterrupt) as error:
        if isinstance(error, KeyboardInterrupt | StorageError | TrackingError | LeaseLost):
            raise TrialInterrupted(error) from error
        trial.set_user_attr("error", f"{type(error).__name__}: {error}")
        raise TrainingError(f"trial {trial.number} failed: {error}") from error


def weights_digest(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of all values in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(weights[name].detach().cpu().contiguous().view(-1).numpy().tobytes())
    return digest.hexdigest()
