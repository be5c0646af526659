"""One worker of a search: trains trials of a study that it shares with the others."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from optuna import Study, TrialPruned
from optuna.trial import FrozenTrial, Trial

from cifar_tasks.config import with_values
from cifar_tasks.steps.inputs import check_model, initial_model, load_training_images
from cifar_tasks.steps.payloads import TrialWorker, WorkerResult
from cifar_tasks.tracking import runs
from cifar_tasks.tracking.airflow_links import link_run
from cifar_tasks.tracking.mlflow_run import MlflowCallback
from cifar_tasks.tracking.runs import MODEL, SEARCHED_IN, STUDY, TRIAL
from cifar_tasks.training.callbacks import LogProgress
from cifar_tasks.training.device import choose_device
from cifar_tasks.training.setup import run_params, to_split
from cifar_tasks.training.transfer import fit_classifier
from cifar_tasks.tuning.space import format_params, free_space, suggest
from cifar_tasks.tuning.study import load_study, optimize, requeue
from cifar_tasks.tuning.trial import TrialCallback, trial_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient

_log = logging.getLogger(__name__)


def run_trials(worker: TrialWorker) -> WorkerResult:
    """Train trials of the study, one after another, until its budget is spent.

    Raises `ModelSkipped` if the run does without this model. A trial that fails by itself is one failed trial. If
    storage or MLflow is lost, its hyperparameters return to the queue and the error is raised: a retry of this worker
    continues.
    """
    data, config = worker.plan.data, worker.trial_config
    url = runs.run_url(worker.study_run_id, data.experiment_id)
    _log.info("MLflow run: %s", url)
    study, client, device = load_study(worker.study, worker.seed), runs.mlflow_client(), choose_device()
    start = worker.plan.start
    space = free_space(config, worker.plan.fixed, warm=start is not None)
    images = load_training_images(data.dataset_uri, config)
    check_model(config, images.version, start)
    train, validation = (to_split(device, part.images, part.labels) for part in (images.train, images.validation))

    def validation_accuracy(trial: Trial) -> float:
        """Of the model that this trial trains, 0–1."""
        with trial_errors(trial), runs.tracking_errors(), _trial_run(client, worker, trial) as run_id:
            values = suggest(trial, space)
            _log.info("trial %d: %s", trial.number, format_params(values))
            model, recipe, weights = initial_model(with_values(config, values), images, start)
            params = run_params(recipe, model, weights, device)
            callbacks = [LogProgress(), MlflowCallback(client, run_id, params), TrialCallback(trial)]
            return fit_classifier(model.to(device), recipe, train, validation, callbacks).best.validation_accuracy

    def report_end(study: Study, trial: FrozenTrial) -> None:
        _log.info("trial %d: %s, accuracy %s", trial.number, trial.state.name, trial.value)
        if run_id := trial.user_attrs.get("mlflow_run_id"):  # none if the trial failed before it had one
            with runs.tracking_errors():
                tags = {"cifar.state": trial.state.name, "cifar.error": trial.user_attrs.get("error")}
                runs.log_tags(client, run_id, tags)

    trials = optimize(study, validation_accuracy, worker.budget.trials, worker.budget.deadline, [report_end])
    _log.info("the study's budget is spent; this worker trained %d trials", trials)
    return WorkerResult(
        model=config.model,
        study=worker.study,
        study_run_id=worker.study_run_id,
        name=worker.name,
        trials=trials,
        mlflow_url=url,
    )


@contextmanager
def _trial_run(client: "MlflowClient", worker: TrialWorker, trial: Trial) -> Iterator[str]:
    """The MLflow run of the trial; a retry continues that of the trial it repeats."""
    first = requeue.retried_trial_number(trial.study.trials[trial.number])
    number = trial.number if first is None else first
    model, pruned, data = worker.plan.config.model, None, worker.plan.data
    identity = {STUDY: worker.study, TRIAL: str(number), MODEL: model}
    run = runs.open_run(client, data.experiment_id, identity, f"{model} trial {number}", parent=worker.study_run_id)
    trial.set_user_attr("mlflow_run_id", run.info.run_id)
    link_run(client, run, data.workflow.id, data.workflow.url, data.request.registered_model)
    runs.log_tags(client, run.info.run_id, {SEARCHED_IN: data.workflow.id})
    with runs.closing(client, run.info.run_id):
        try:
            yield run.info.run_id
        except TrialPruned as early_end:  # not a failure of the run
            pruned = early_end
    if pruned:
        raise pruned
