"""One Optuna study that several workers draw from: its budget is met exactly, and a trial whose worker died is retried.

Workers meet in the database only. Which trial is next is decided by one of them at a time, behind a lock of PostgreSQL.
"""

import logging
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from datetime import datetime
from itertools import combinations
from threading import Event, Thread
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.pruners import SuccessiveHalvingPruner
from optuna.samplers import TPESampler
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback, fail_stale_trials
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy import text

from cifar_tasks.errors import ConfigError, SearchError
from cifar_tasks.settings import Settings
from cifar_tasks.storage.s3 import canonical_json, sha256_hex
from cifar_tasks.tuning.space import Space

HEARTBEAT_SECONDS, GRACE_SECONDS = 5, 30
"""How often a worker says that its trial lives, and how long it may be silent before the trial is given to another."""
WAIT_SECONDS = 2.0
RETRIES = 1
"""Of a trial whose worker died: once more, elsewhere."""

# Heartbeats, multivariate TPE and charts by matplotlib bear the label for years.
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
# Optuna beats only in its own loop, which cannot meet a budget exactly; `keeping` does it here.
warnings.filterwarnings("ignore", "Heartbeat of storage")
optuna.logging.set_verbosity(optuna.logging.WARNING)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Budget:
    """What a study may spend: so many trials in all, and no new one after `deadline`."""

    trials: int
    deadline: float | None = None
    """Unix time."""


@dataclass(frozen=True)
class Trained:
    """What a trial's own model gave. A trial has no value but this."""

    accuracy: float
    """On the validation split, 0–1, best epoch so far."""
    validation_loss: float
    weights_sha256: str


def study_name(model: str, identity: Mapping[str, Any]) -> str:
    """The same for the same data, recipe, trial length and code: whoever asks for it again goes on with it."""
    return f"{model}-{sha256_hex(canonical_json(dict(identity)))[:12]}"


def sampler(seed: int) -> TPESampler:
    """TPE draws its first trials at random; with budgets of a few dozen, ten of them would be half of the search."""
    return TPESampler(n_startup_trials=6, multivariate=True, seed=seed)


def pruner() -> SuccessiveHalvingPruner:
    """After epochs 2, 4, 8 … the better half goes on.

    Not after the first: in a short epoch the running statistics of batch norm have hardly left their start.
    """
    return SuccessiveHalvingPruner(min_resource=2, reduction_factor=2)


class SharedStudy:
    """A study by name. Each worker has an object of its own; `seed` must differ between them."""

    def __init__(self, name: str, seed: int = 0, *, create: bool = False) -> None:
        self.storage = connect()
        if create:
            self.study = optuna.create_study(
                storage=self.storage, study_name=name, direction="maximize", load_if_exists=True
            )
        else:
            self.study = optuna.load_study(storage=self.storage, study_name=name)
        # A worker that comes back must not draw again what it drew before.
        self.study.sampler = sampler(seed + 1000 * len(self.trials))
        self.study.pruner = pruner()

    @property
    def trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def claim(self, worker: str, space: Space, budget: Budget) -> Trial | None:
        """The next trial, sampled from `space`; none once the budget is spent and all trials have ended.

        While only trials of other workers are left it waits, for one of them may die and leave its trial.
        """
        while True:
            with self._alone():
                fail_stale_trials(self.study)
                # A worker names itself last, within the lock: one that did not come to it died before its first beat.
                self._lose_running(None)
                trials = self.trials
                if may_begin(trials, budget):
                    return self._ask(worker, space)
                if not any(trial.state is TrialState.RUNNING for trial in trials):
                    return None
            time.sleep(WAIT_SECONDS)

    def take_back(self, worker: str) -> None:
        """Trials that an earlier process of this worker left: nobody else can be at work on them."""
        with self._alone():
            self._lose_running(worker)

    def complete(self, trial: Trial, trained: Trained, *, pruned: bool = False) -> None:
        """Raises `SearchError` when the trial's result is another trial's."""
        with self._alone():
            if self._is_lost(trial):
                return
            for name in ("validation_loss", "weights_sha256", "accuracy"):
                trial.set_user_attr(name, getattr(trained, name))
            state = TrialState.PRUNED if pruned else TrialState.COMPLETE
            self.study.tell(trial, None if pruned else trained.accuracy, state)
            check_distinct(self.trials)

    def fail(self, trial: Trial, reason: str) -> None:
        """The trial's own fault: it counts, and is not tried again."""
        with self._alone():
            if not self._is_lost(trial):
                trial.set_user_attr("error", reason)
                self.study.tell(trial, state=TrialState.FAIL)

    @contextmanager
    def keeping(self, trial: Trial) -> Iterator[None]:
        """Meanwhile other workers know that the trial lives. One that is left without an end is put back."""
        ended = Event()

        def beat() -> None:
            while not ended.wait(HEARTBEAT_SECONDS):
                try:
                    self.storage.record_heartbeat(trial._trial_id)
                except StorageInternalError as error:
                    _log.warning("trial %d: the database did not take a sign of life: %s", trial.number, error)

        thread = Thread(target=beat, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        except BaseException as error:
            with self._alone():
                kept = self.trials[trial.number]
                if kept.state is TrialState.RUNNING:
                    trial.set_user_attr("error", f"broken off: {error or type(error).__name__}")
                    self._lose(kept)
            raise
        finally:
            ended.set()
            thread.join()

    def best(self) -> tuple[FrozenTrial, float]:
        """The completed trial with the highest accuracy, the earliest of equals, and that accuracy (0–1).

        Raises `SearchError` if there is none.
        """
        check_distinct(self.trials)
        completed = [(trial, trial.value) for trial in self.trials if trial.value is not None]
        if completed:
            return max(completed, key=lambda scored: (scored[1], -scored[0].number))
        failed = [trial for trial in self.trials if trial.state is TrialState.FAIL]
        first = failed[0].user_attrs.get("error", "its worker died") if failed else "none was begun"
        raise SearchError(
            f"no trial of study {self.study.study_name} ended with a result ({len(failed)} failed). The first: {first}"
        )

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No other process is in here for the same study; PostgreSQL frees the lock of one that dies."""
        with self.storage.engine.begin() as connection:
            name = {"name": f"study {self.study.study_name}"}
            connection.execute(text("SELECT pg_advisory_xact_lock(hashtext(:name))"), name)
            yield

    def _ask(self, worker: str, space: Space) -> Trial:
        trial = self.study.ask(space)
        self.storage.record_heartbeat(trial._trial_id)
        trial.set_user_attr("worker", worker)
        return trial

    def _lose_running(self, worker: str | None) -> None:
        for trial in self.trials:
            if trial.state is TrialState.RUNNING and trial.user_attrs.get("worker") == worker:
                self._lose(trial)

    def _lose(self, trial: FrozenTrial) -> None:
        self.storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
        _retry(self.study, trial)

    def _is_lost(self, trial: Trial) -> bool:
        """Whether others took this worker for dead meanwhile: the retry's result is the one that counts."""
        lost = self.storage.get_trial(trial._trial_id).state.is_finished()
        if lost:
            _log.warning("trial %d was given to another worker meanwhile: its result is dropped", trial.number)
        return lost


def _retry(study: optuna.Study, trial: FrozenTrial) -> None:
    lost = copy(trial)
    lost.user_attrs = {}  # what the earlier try found out is not the new one's
    RetryHeartbeatStaleTrialCallback(max_retry=RETRIES)(study, lost)
    _log.warning("trial %d lost its worker", trial.number)


def is_retry(trial: FrozenTrial) -> bool:
    return bool(trial.system_attrs.get("retry_history"))


def begun(trials: Sequence[FrozenTrial]) -> int:
    """Trials that count against the budget: a retry is no new one."""
    return sum(not is_retry(trial) for trial in trials)


def may_begin(trials: Sequence[FrozenTrial], budget: Budget) -> bool:
    """Whether a worker may take another trial: one that waits, or a new one."""
    if budget.deadline is not None and time.time() >= budget.deadline:
        return False
    return begun(trials) < budget.trials or any(trial.state is TrialState.WAITING for trial in trials)


def check_distinct(trials: Sequence[FrozenTrial]) -> None:
    """Raise `SearchError` if two trials with different parameters have one result: then one model was scored twice.

    So it was in the report, whose ten trials all show 0.8303. Equal accuracies alone can be chance.
    """
    ended = [trial for trial in trials if "weights_sha256" in trial.user_attrs]
    for first, second in combinations(ended, 2):
        if first.params == second.params:
            continue
        for name, what in (("validation_loss", "validation loss"), ("weights_sha256", "digest of their weights")):
            if first.user_attrs[name] == second.user_attrs[name]:
                raise SearchError(
                    f"trials {first.number} and {second.number} have different parameters and the same {what}, "
                    f"{first.user_attrs[name]}: the search does not score the models that its trials train."
                )


def connect() -> RDBStorage:
    """The database of all studies; `ConfigError` where none is set."""
    url = Settings().studies_url
    if url is None:
        raise ConfigError(
            "there is no database for studies: start the stack (`cifar up`) or set CIFAR_STUDIES_URL to a PostgreSQL "
            "URL."
        )
    return RDBStorage(
        url.get_secret_value(),
        engine_kwargs={"pool_pre_ping": True, "pool_size": 2},
        heartbeat_interval=HEARTBEAT_SECONDS,
        grace_period=GRACE_SECONDS,
        heartbeat_stale_trial_callback=_retry,
    )


def studies() -> list[optuna.study.StudySummary]:
    """All studies of the database, the newest first."""
    found = optuna.get_all_study_summaries(connect(), include_best_trial=True)
    return sorted(found, key=lambda study: study.datetime_start or datetime.min, reverse=True)
