"""After the search: the hyperparameters that each model is trained with."""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cifar_tasks.config import with_values
from cifar_tasks.data.versions import load_version
from cifar_tasks.settings import Settings
from cifar_tasks.steps.payloads import ParamsSource, TrainPlan, WorkerResult
from cifar_tasks.storage.s3 import S3Store
from cifar_tasks.tracking import model_registry, runs
from cifar_tasks.tracking.runs import DATASET, MODEL, PROFILE
from cifar_tasks.tuning import charts
from cifar_tasks.tuning.space import format_params
from cifar_tasks.tuning.study import best_trial, count_ended, load_study

if TYPE_CHECKING:
    from mlflow import MlflowClient

_log = logging.getLogger(__name__)


def select_params(plans: list[TrainPlan], results: list[WorkerResult]) -> list[TrainPlan]:
    """The plans with the best hyperparameters of their studies; of models that were not tuned, of earlier searches.

    A study that got no trial before its time limit leaves the plan as it is. Raises `SearchError` if a study has no
    result that can be trusted.
    """
    client, studies = runs.mlflow_client(), {result.model: result for result in results}
    return [
        _best_of_study(client, plan, studies[plan.config.model])
        if plan.config.model in studies
        else reuse_best_params(client, plan)
        for plan in plans
    ]


def reuse_best_params(client: "MlflowClient", plan: TrainPlan) -> TrainPlan:
    """The plan with the hyperparameters of the best registered version that a search led to, on the same data and with
    the same profile.

    What the user has set stays.
    """
    model, data = plan.config.model, plan.data
    version = load_version(S3Store(Settings().bucket), data.dataset_uri)
    with runs.tracking_errors():
        reused = model_registry.reused_params(
            client,
            data.request.registered_model,
            {MODEL: model, DATASET: version.digest, PROFILE: data.request.profile},
            plan.fixed,
        )
    if reused is None:
        return plan
    params, known = reused
    _log.info("%s: hyperparameters of version %s: %s", model, known.version, format_params(params))
    source = f"version {known.version}, {known.tags['cifar.params_source']}"
    return _with_params(plan, params, ParamsSource(text=source, params=params))


def _best_of_study(client: "MlflowClient", plan: TrainPlan, result: WorkerResult) -> TrainPlan:
    """Closes the study's MLflow run with table and charts."""
    study, run_id = load_study(result.study), result.study_run_id
    with runs.tracking_errors():
        runs.restore(client, run_id)
    with runs.tracking_errors(), runs.closing(client, run_id):
        charts.log_study(client, run_id, study)
        if plan.data.request.search_minutes and not count_ended(study):
            # The studies share time and workers: one without a trial must not cost the others what they have found.
            warning = (
                f"{plan.config.model} is trained without tuning: no trial of study {result.study} ended before the "
                f"time limit (Minutes: {plan.data.request.search_minutes})."
            )
            _log.warning("%s", warning)
            return plan.model_copy(update={"search_warning": warning})
        best = best_trial(study)
        runs.log_metrics(client, run_id, {"best_accuracy": best.value or 0.0, "trials": len(study.trials)})
        runs.log_tags(client, run_id, {"cifar.best_trial": best.number})
    _log.info("study %s: trial %d is best with %.4f: %s", result.study, best.number, best.value, result.mlflow_url)
    source = ParamsSource(
        text=f"study {result.study}, trial {best.number}",
        params=best.params,
        study=result.study,
        trial=best.number,
        study_url=result.mlflow_url,
    )
    return _with_params(plan, best.params, source)


def _with_params(plan: TrainPlan, params: Mapping[str, Any], source: ParamsSource) -> TrainPlan:
    return plan.model_copy(update={"config": with_values(plan.config, params), "params_source": source})
