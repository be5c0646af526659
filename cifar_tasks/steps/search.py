"""One worker of a search: trains trials of a study that it shares with the others."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from optuna import TrialPruned
from optuna.trial import Trial

from cifar_tasks.config import TrainConfig, config_from_dict
from cifar_tasks.data import LabelledImages, load_version
from cifar_tasks.errors import CifarError, SearchError
from cifar_tasks.settings import Settings
from cifar_tasks.steps.start import load_parts, on_device, start_model
from cifar_tasks.steps.train import fit_in_parts, surroundings
from cifar_tasks.steps.tune import STUDY, searched
from cifar_tasks.storage.s3 import S3Store
from cifar_tasks.tracking import runs
from cifar_tasks.tracking.mlflow_run import MlflowRun
from cifar_tasks.tracking.runs import MODEL
from cifar_tasks.training import TrainingState, choose_device
from cifar_tasks.tuning import Budget, SharedStudy, apply, charts
from cifar_tasks.tuning.trial import TrialFollower, trained

if TYPE_CHECKING:
    from mlflow import MlflowClient

Json = dict[str, Any]

TRIAL, STATE = "cifar.trial", "cifar.state"

_log = logging.getLogger(__name__)


def train_trials(work: Json, data: Json) -> Json:
    """Train trials of a study, one after another, until its budget is spent; returns how many.

    A trial that fails by its own fault is one failed trial. When storage or MLflow are gone the trial is put back and
    the error goes on: a retry of this worker takes part again.
    """
    worker, config = worker_name(work, data), config_from_dict(work["config"])
    study = SharedStudy(work["study"], seed=work["seed"])
    study.take_back(worker)
    client, store, done = runs.mlflow_client(), S3Store(Settings().bucket), 0
    version = load_version(store, data["uri"])
    parts, space = load_parts(store, version, config), searched(config, work["fixed"])
    while (trial := study.claim(worker, space, Budget(**work["budget"]))) is not None:
        chosen = apply(config, trial.params)
        _log.info("trial %d: %s", trial.number, charts.in_words(trial.params))
        with study.keeping(trial), _trial_run(client, study, trial, work["model"]) as run_id:
            _train(study, trial, chosen, len(version.classes), parts, MlflowRun(client, run_id))
        done += 1
    _log.info("the study's budget is spent; this worker trained %d trials", done)
    url = runs.run_url(study.study.user_attrs["mlflow_run_id"], study.study.user_attrs["experiment"])
    return {"model": work["model"], "study": work["study"], "worker": work["worker"], "trials": done, "mlflow_url": url}


def worker_name(work: Json, data: Json) -> str:
    """The worker's name in the study: two runs that search one study at a time have workers of their own."""
    return f"{work['worker']} of run {data['parent_run_id']}"


@contextmanager
def _trial_run(client: "MlflowClient", study: SharedStudy, trial: Trial, model: str) -> Iterator[str]:
    """The trial's MLflow run; its end is the trial's, whatever that was."""
    about = study.study.user_attrs
    with runs.tracking_errors():
        identity = {STUDY: study.study.study_name, TRIAL: str(trial.number), MODEL: model}
        name = f"{model} trial {trial.number}"
        run = runs.open_run(client, about["experiment"], identity, name, parent=about["mlflow_run_id"])
        trial.set_user_attr("mlflow_run_id", run.info.run_id)
        with runs.closing(client, run.info.run_id):
            yield run.info.run_id
        ended = study.trials[trial.number]
        runs.log_tags(client, run.info.run_id, {STATE: ended.state.name, "cifar.error": ended.user_attrs.get("error")})


def _train(
    study: SharedStudy,
    trial: Trial,
    config: TrainConfig,
    classes: int,
    parts: tuple[LabelledImages, LabelledImages],
    tracker: MlflowRun,
) -> None:
    """Train one trial to its end, and say in the study what that was."""
    device, seen = choose_device(), list[TrainingState]()
    try:
        model, recipe, imagenet = start_model(config, classes, parts[0])
        train, validation = (on_device(device, part) for part in parts)
        follow = partial(TrialFollower, trial, tracker, seen)
        with runs.tracking_errors():  # worth a retry, unlike what else goes wrong in a trial
            tracker.log_parameters(surroundings(recipe, model, imagenet, device))
            state = fit_in_parts(model.to(device), recipe, train, validation, follow)
        study.complete(trial, trained(state))
    except TrialPruned:
        study.complete(trial, trained(seen[-1]), pruned=True)
        _log.info("trial %d is pruned after epoch %d", trial.number, len(seen[-1].history))
    except SearchError:
        raise
    except Exception as error:
        if isinstance(error, CifarError) and error.retryable:
            raise
        _log.exception("trial %d failed", trial.number)
        study.fail(trial, f"{type(error).__name__}: {error}")
