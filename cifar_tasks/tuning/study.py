"""Optuna studies in PostgreSQL, which workers on any number of machines share.

Optuna's heartbeat tells which trials lost their worker; their hyperparameters return to the queue once.
"""

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.pruners import SuccessiveHalvingPruner
from optuna.samplers import TPESampler
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.study import Study, StudySummary
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from cifar_tasks.errors import ConfigError, SearchError, StorageError, StorageRefused, TrainingError
from cifar_tasks.settings import Settings
from cifar_tasks.storage.hosts import is_known
from cifar_tasks.storage.s3 import canonical_json, sha256_hex

TrialEnd = Callable[[Study, FrozenTrial], None]
"""Called with each trial that a worker has ended."""

warnings.filterwarnings("ignore", category=ExperimentalWarning)  # Optuna's heartbeat has had this label since 2021
optuna.logging.set_verbosity(optuna.logging.WARNING)  # its other lines repeat those of the steps

requeue = RetryHeartbeatStaleTrialCallback(max_retry=1)


class TrialInterrupted(BaseException):
    """Ends a worker, but not its trial: Optuna retries a running trial whose heartbeat is missing.

    An `Exception` would be a result to Optuna: a failed trial.
    """

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error


REFUSALS = ("authentication failed", "does not exist", "no pg_hba.conf entry", "permission denied", "invalid response")
"""In what PostgreSQL says where a retry would fail in the same way; only its texts tell."""


def database_error(error: BaseException) -> StorageError:
    """What an error of SQLAlchemy or Optuna means: the database is away, or it refuses and always will."""
    cause = getattr(error, "orig", None) or error.__cause__ or error
    # psycopg: `connection failed: connection to server at …, port 5432 failed: FATAL:  …`
    reason = (
        str(getattr(cause, "orig", None) or cause)
        .strip()
        .splitlines()[0]
        .rpartition("failed: ")[2]
        .removeprefix("FATAL:")
        .strip()
    )
    if any(text in reason for text in REFUSALS):
        return StorageRefused(f"the database of studies refused: {reason}. Correct CIFAR_STUDIES_URL.")
    return StorageError(f"the database of studies (CIFAR_STUDIES_URL) did not answer: {reason}.")


@contextmanager
def database_errors(study: str = "") -> Iterator[None]:
    """Turns what Optuna and SQLAlchemy raise into what this product's callers expect."""
    try:
        yield
    except (StorageInternalError, SQLAlchemyError) as error:
        raise database_error(error) from error
    except (KeyError, UnboundLocalError) as error:  # the second is Optuna's, if the study goes while a trial ends
        raise SearchError(f"there is no study {study}: it was deleted. Start a new run.") from error


def study_name(model: str, identity: Mapping[str, Any]) -> str:
    """Equal for equal data, recipe, trial length, search space and code: the same search continues its study."""
    return f"{model}-{sha256_hex(canonical_json(dict(identity)))[:12]}"


def sampler(seed: int) -> TPESampler:
    """TPE draws its first trials at random; its default of ten would be half of a budget of a few dozen."""
    return TPESampler(n_startup_trials=6, multivariate=True, seed=seed)


def pruner() -> SuccessiveHalvingPruner:
    """The better half continues after epochs 2, 4, 8 ….

    Not after the first: in a short epoch the running statistics of batch norm have hardly left their start.
    """
    return SuccessiveHalvingPruner(min_resource=2, reduction_factor=2)


def study_storage() -> RDBStorage:
    """The database of all studies; `ConfigError` if none is set."""
    settings = Settings()
    if settings.studies_url is None:
        raise ConfigError(
            "there is no database for studies: start the stack (`cifar up`) or set CIFAR_STUDIES_URL to a PostgreSQL "
            "URL."
        )
    url = settings.studies_url.get_secret_value()
    try:
        host = make_url(url).host
        if host and not is_known(host):
            raise StorageError(f"no host has the name in CIFAR_STUDIES_URL, {host}. Is it right?")
        return RDBStorage(
            url,
            engine_kwargs={"pool_pre_ping": True, "pool_size": 2},
            heartbeat_interval=settings.trial_heartbeat,
            grace_period=3 * settings.trial_heartbeat,
            heartbeat_stale_trial_callback=requeue,
        )
    except (ArgumentError, NoSuchModuleError, ImportError, ValueError):  # ValueError: the port is no number
        raise ConfigError(
            "CIFAR_STUDIES_URL is no URL of a database: write postgresql://USER:PASSWORD@HOST/NAME."
        ) from None


def all_studies() -> list[StudySummary]:
    """All studies of the database, the newest first."""
    with database_errors():
        found = optuna.get_all_study_summaries(study_storage(), include_best_trial=True)
    return sorted(found, key=lambda study: study.datetime_start or datetime.min, reverse=True)


def create_study(name: str) -> Study:
    """The study of this name, found if it exists."""
    with database_errors(name):
        return optuna.create_study(storage=study_storage(), study_name=name, direction="maximize", load_if_exists=True)


def load_study(name: str, seed: int = 0) -> Study:
    """A study that exists; `seed` must differ between its workers. Raises `SearchError` if it does not exist."""
    with database_errors(name):
        study = optuna.load_study(storage=study_storage(), study_name=name, pruner=pruner())
        # A worker that starts again must not draw what it drew before.
        study.sampler = sampler(seed + 1000 * len(study.get_trials(deepcopy=False)))
    return study


def optimize(
    study: Study,
    objective: Callable[[Trial], float],
    trials: int,
    deadline: float | None = None,
    callbacks: Sequence[TrialEnd] = (),
) -> int:
    """Run trials until the study has `trials` of them or `deadline` (Unix time) has passed; returns how many ran here.

    Each other worker may end one more. A `TrainingError` is one failed trial, and the search continues. Raises
    `SearchError` if two trials have one result, and what interrupted a trial.
    """
    ended: list[int] = []

    def stop_when_spent(study: Study, trial: FrozenTrial) -> None:
        ended.append(trial.number)
        if count_ended(study) >= trials:
            study.stop()

    try:
        with database_errors(study.study_name):
            if count_ended(study) >= trials:
                return 0
            timeout = None if deadline is None else deadline - time.time()
            study.optimize(
                objective, timeout=timeout, catch=TrainingError, callbacks=[*callbacks, check_distinct, stop_when_spent]
            )
    except TrialInterrupted as interrupted:
        raise interrupted.error from None
    return len(ended)


def count_ended(study: Study) -> int:
    """Trials that count against the budget. A trial that lost its worker counts once, with its retry."""
    trials = study.get_trials(deepcopy=False)
    retried = {number for trial in trials for number in requeue.retry_history(trial)}
    return sum(trial.state.is_finished() and trial.number not in retried for trial in trials)


def best_trial(study: Study) -> FrozenTrial:
    """The completed trial with the highest accuracy, the earliest of equals. Raises `SearchError` if there is none."""
    check_distinct(study)
    trials = study.get_trials(deepcopy=False)
    completed = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    if completed:
        return max(completed, key=lambda trial: (trial.value or 0.0, -trial.number))
    failed = [trial for trial in trials if trial.state is TrialState.FAIL]
    reason = failed[0].user_attrs.get("error", "its worker was lost") if failed else "none has ended."
    raise SearchError(f"no trial of study {study.study_name} has a result, {len(failed)} failed. The first: {reason}")


def check_distinct(study: Study, trial: FrozenTrial | None = None) -> None:
    """Raise `SearchError` if two trials with different hyperparameters have one result: one model was scored twice.

    This is the report's defect: its ten trials all show 0.8303. Equal accuracies alone can be chance.
    """
    trials = study.get_trials(deepcopy=False)
    for name, what in (("validation_loss", "validation loss"), ("weights_sha256", "digest of their weights")):
        found: dict[Any, FrozenTrial] = {}
        for second in (trial for trial in trials if name in trial.user_attrs):
            value = second.user_attrs[name]
            first = found.setdefault(value, second)
            if first.params != second.params:
                raise SearchError(
                    f"trials {first.number} and {second.number} have different hyperparameters and the same {what}, "
                    f"{value}: the search does not score the models that its trials train."
                )
