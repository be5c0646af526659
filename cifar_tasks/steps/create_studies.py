"""Before the search: an Optuna study, and its MLflow run, for each model to be tuned."""

import logging
import time

from optuna.distributions import distribution_to_json

from cifar_tasks.config import Profile, TrainConfig, flat, trial_config
from cifar_tasks.data.versions import load_version
from cifar_tasks.errors import ConfigError
from cifar_tasks.settings import Settings
from cifar_tasks.steps.payloads import MAX_WORKERS, RunRequest, TrainPlan, TrialBudget, TrialWorker
from cifar_tasks.storage.s3 import S3Store
from cifar_tasks.tracking import runs
from cifar_tasks.tracking.airflow_links import link_run
from cifar_tasks.tracking.provenance import code_digest
from cifar_tasks.tracking.runs import DATASET, MODEL, SEARCHED_IN, STUDY
from cifar_tasks.tuning.space import free_space, recipe_params
from cifar_tasks.tuning.study import create_study, study_name

TRIALS: dict[Profile, int] = {"demo": 8, "full": 24}
"""Of one study, if the request does not say."""
MAX_MAPPED_TASKS = 1024
"""Airflow's default of `max_map_length`."""

_log = logging.getLogger(__name__)


def create_studies(plans: list[TrainPlan]) -> list[TrialWorker]:
    """Create or find the study of each model to be tuned; returns its workers."""
    request = plans[0].data.request
    deadline = time.time() + 60 * request.search_minutes if request.search_minutes else None
    if len(request.tune) * _workers_per_study(request) > MAX_MAPPED_TASKS:
        raise ConfigError(
            f"{len(request.tune)} studies with {_workers_per_study(request)} workers each are more than the "
            f"{MAX_MAPPED_TASKS:,} tasks that Airflow maps. Give fewer workers."
        )
    budget = TrialBudget(trials=request.trials or TRIALS[request.profile], deadline=deadline)
    return [worker for plan in plans if plan.config.model in request.tune for worker in _workers_of_study(plan, budget)]


def _workers_of_study(plan: TrainPlan, budget: TrialBudget) -> list[TrialWorker]:
    request = plan.data.request
    config = trial_config(plan.config, request.profile)
    study, run_id = _create_study(plan, config)
    return [
        TrialWorker(
            plan=plan,
            trial_config=config,
            study=study,
            study_run_id=run_id,
            budget=budget,
            name=f"{config.model} {number}",
            seed=number,
        )
        for number in range(1, _workers_per_study(request) + 1)
    ]


def _workers_per_study(request: RunRequest) -> int:
    return request.search_workers or min(Settings().gpu_slots, MAX_WORKERS)


def _create_study(plan: TrainPlan, config: TrainConfig) -> tuple[str, str]:
    """Name and MLflow run of the study."""
    version = load_version(S3Store(Settings().bucket), plan.data.dataset_uri)
    space = free_space(config, plan.fixed, warm=plan.start is not None)
    bounds = {name: distribution_to_json(values) for name, values in space.items()}
    identity = {"data": version.digest, "config": flat(config), "space": bounds, "code": code_digest()}
    identity |= {"start": plan.start.saved.sha256} if plan.start else {}
    name = study_name(config.model, identity)
    study = create_study(name)
    # The recipe is the first trial: a search that finds nothing better keeps it.
    study.enqueue_trial(recipe_params(config, space), skip_if_exists=True)
    client, title, data = runs.mlflow_client(), f"search {config.model}", plan.data
    with runs.tracking_errors():
        if not runs.exists(client, study.user_attrs.get("mlflow_run_id")):  # new, or deleted in MLflow
            tags = {STUDY: name, MODEL: title}
            run = runs.open_run(client, data.experiment_id, tags, title, parent=data.parent_run_id)
            link_run(client, run, data.workflow.id, data.workflow.url, data.request.registered_model)
            runs.log_tags(client, run.info.run_id, {DATASET: version.digest, SEARCHED_IN: data.workflow.id})
            study.set_user_attr("dataset", version.name)
            study.set_user_attr("mlflow_run_id", run.info.run_id)
    _log.info("study %s: %d trials so far", name, len(study.trials))
    return name, study.user_attrs["mlflow_run_id"]
