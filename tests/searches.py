"""Small searches for the tests of tuning: plans, workers, and the states of their trials."""

from typing import Any

from cifar_tasks.config import Overrides
from cifar_tasks.steps.create_studies import create_studies
from cifar_tasks.steps.payloads import PreparedData, TrainPlan, TrialWorker
from cifar_tasks.steps.plan import plan_training
from cifar_tasks.tuning.study import load_study
from tests.trainings import Background, as_json

RUN_TRIALS = "cifar_tasks.steps.run_trials:run_trials"


def plans_for(data: PreparedData, seed: int, epochs: int = 2, **changes: Any) -> list[TrainPlan]:
    """Of a CNN that is tuned; each `seed` has a study of its own."""
    overrides = Overrides(epochs=epochs, batch_size=32, seed=seed)
    form = {"tune": ["cnn"], "trials": 3, "search_workers": 2, "overrides": overrides, **changes}
    return plan_training(data.model_copy(update={"request": data.request.model_copy(update=form)}))


def workers_for(data: PreparedData, seed: int, epochs: int = 2, **changes: Any) -> list[TrialWorker]:
    return create_studies(plans_for(data, seed, epochs, **changes))


def states(worker: TrialWorker) -> list[str]:
    return [trial.state.name for trial in load_study(worker.study).trials]


def in_background(worker: TrialWorker) -> Background:
    return Background(RUN_TRIALS, worker=as_json(worker))


def first_epoch_ended(worker: TrialWorker) -> bool:
    return any(trial.intermediate_values for trial in load_study(worker.study).trials)
