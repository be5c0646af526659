"""The search for parameters: studies are opened, workers train their trials, and the best parameters are chosen."""

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from optuna import TrialPruned
from optuna.distributions import distribution_to_json
from optuna.trial import Trial

from cifar_tasks import registry, tracking
from cifar_tasks.config import TrainConfig, chosen_models, config_from_dict, trial_config
from cifar_tasks.data import LabelledImages, load_version
from cifar_tasks.errors import CifarError, ConfigError, SearchError
from cifar_tasks.provenance import code_digest
from cifar_tasks.search import SPACES, Budget, SharedStudy, apply, figures, recipe_parameters, study_name
from cifar_tasks.search.space import Space
from cifar_tasks.search.trial import TrialFollower, trained
from cifar_tasks.settings import Settings
from cifar_tasks.steps.train import fit_in_parts, load_parts, on_device, start_model, surroundings
from cifar_tasks.storage import S3Store
from cifar_tasks.trackers.mlflow_run import MlflowRun
from cifar_tasks.tracking import DATASET, MODEL
from cifar_tasks.training import TrainingState, choose_device

if TYPE_CHECKING:
    from mlflow import MlflowClient

Json = dict[str, Any]

STUDY, TRIAL, STATE = "cifar.study", "cifar.trial", "cifar.state"
TRIALS = {"demo": 8, "full": 24}
"""Of one study, where the form does not say."""

_log = logging.getLogger(__name__)


def open_studies(lanes: list[Json], data: Json, search: Json) -> list[Json]:
    """Make or find a study for each model to be tuned; returns what each of its workers has to know.

    `search` is the form's `tune`, `profile`, `trials`, `search_minutes` and `search_workers`.
    """
    settings = Settings()
    tuned = chosen_models(search["tune"])
    if not any(lane["config"]["model"] in tuned for lane in lanes):
        raise ConfigError(f"tune is {search['tune']}, but that model is not trained: change `tune` or `models`.")
    workers = search["search_workers"] or settings.gpu_slots
    deadline = time.time() + 60 * search["search_minutes"] if search["search_minutes"] else None
    budget = {"trials": search["trials"] or TRIALS[search["profile"]], "deadline": deadline}
    work = []
    for lane in lanes:
        model = lane["config"]["model"]
        if model not in tuned:
            continue
        config = trial_config(config_from_dict(lane["config"]), search["profile"])
        name = _open(config, lane["fixed"], data)
        common = {"model": model, "study": name, "config": asdict(config), "fixed": lane["fixed"], "budget": budget}
        work += [{**common, "worker": f"{model} {number}", "seed": number} for number in range(1, workers + 1)]
    return work


def search(work: Json, data: Json) -> Json:
    """Train trials of a study, one after another, until its budget is spent; returns how many.

    A trial that fails by its own fault is one failed trial. When storage or MLflow are gone the trial is put back and
    the error goes on: a retry of this worker takes part again.
    """
    worker, config = work["worker"], config_from_dict(work["config"])
    study = SharedStudy(work["study"], seed=work["seed"])
    study.take_back(worker)
    client, store, done = tracking.connect(), S3Store(Settings().bucket), 0
    version = load_version(store, data["uri"])
    parts, space = load_parts(store, version, config), searched(config, work["fixed"])
    while (trial := study.claim(worker, space, Budget(**work["budget"]))) is not None:
        chosen = apply(config, trial.params)
        _log.info("trial %d: %s", trial.number, figures.in_words(trial.params))
        with study.keeping(trial), _trial_run(client, study, trial, work["model"]) as run_id:
            _train(study, trial, chosen, len(version.classes), parts, MlflowRun(client, run_id))
        done += 1
    _log.info("the study's budget is spent; this worker trained %d trials", done)
    url = tracking.run_url(study.study.user_attrs["mlflow_run_id"], study.study.user_attrs["experiment"])
    return {"model": work["model"], "study": work["study"], "worker": worker, "trials": done, "mlflow_url": url}


def choose(lanes: list[Json], worked: list[Json], data: Json, name: str) -> list[Json]:
    """The lanes with the best parameters that their studies found; closes the studies' MLflow runs with what they show.

    A lane that was not tuned goes on with what is known from earlier runs.
    """
    client = tracking.connect()
    studies = {each["model"]: each["study"] for each in worked}
    return [
        _with_best(client, lane, studies[lane["config"]["model"]])
        if lane["config"]["model"] in studies
        else _with_known(client, lane, data, name)
        for lane in lanes
    ]


def remember(lanes: list[Json], data: Json, name: str) -> list[Json]:
    """The lanes with the best parameters that earlier searches found for the same data, as the registry knows them."""
    client = tracking.connect()
    return [_with_known(client, lane, data, name) for lane in lanes]


def searched(config: TrainConfig, fixed: list[str]) -> Space:
    """The model's search space without what the user has fixed."""
    return {name: values for name, values in SPACES[config.model]().items() if name not in fixed}


def _open(config: TrainConfig, fixed: list[str], data: Json) -> str:
    version = load_version(S3Store(Settings().bucket), data["uri"])
    space = searched(config, fixed)
    bounds = {name: distribution_to_json(values) for name, values in space.items()}
    identity = {"data": version.digest, "config": asdict(config), "space": bounds, "code": code_digest()}
    name = study_name(config.model, identity)
    shared = SharedStudy(name, create=True)
    if "mlflow_run_id" not in shared.study.user_attrs:
        client = tracking.connect()
        with tracking.tracking_errors():
            experiment = tracking.experiment_id(client, Settings().experiment)
            title = f"search {config.model}"
            tags = {STUDY: name, MODEL: title}
            run = tracking.open_run(client, experiment, tags, title, parent=data["parent_run_id"])
            tracking.log_tags(client, run.info.run_id, {DATASET: version.digest})
        about = {"model": config.model, "dataset": version.name, "dataset_uri": version.uri}
        for key, value in {**about, "experiment": experiment, "mlflow_run_id": run.info.run_id}.items():
            shared.study.set_user_attr(key, value)
        # The recipe is the first trial: a search that finds nothing better keeps it.
        shared.study.enqueue_trial(recipe_parameters(config, space), skip_if_exists=True)
    _log.info("study %s: %d trials so far", name, len(shared.trials))
    return name


@contextmanager
def _trial_run(client: "MlflowClient", study: SharedStudy, trial: Trial, model: str) -> Iterator[str]:
    """The trial's MLflow run; its end is the trial's, whatever that was."""
    about = study.study.user_attrs
    with tracking.tracking_errors():
        identity = {STUDY: study.study.study_name, TRIAL: str(trial.number), MODEL: model}
        name = f"{model} trial {trial.number}"
        run = tracking.open_run(client, about["experiment"], identity, name, parent=about["mlflow_run_id"])
        trial.set_user_attr("mlflow_run_id", run.info.run_id)
        with tracking.closing(client, run.info.run_id):
            yield run.info.run_id
        ended = study.trials[trial.number]
        tracking.log_tags(
            client, run.info.run_id, {STATE: ended.state.name, "cifar.error": ended.user_attrs.get("error")}
        )


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
        with tracking.tracking_errors():  # worth a retry, unlike what else goes wrong in a trial
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


def _with_best(client: "MlflowClient", lane: Json, name: str) -> Json:
    study = SharedStudy(name)
    about, (best, accuracy) = study.study.user_attrs, study.best()
    with tracking.tracking_errors(), tracking.closing(client, about["mlflow_run_id"]):
        figures.log_study(client, about["mlflow_run_id"], study.study)
        tracking.log_metrics(client, about["mlflow_run_id"], {"best_accuracy": accuracy, "trials": len(study.trials)})
        tracking.log_tags(client, about["mlflow_run_id"], {"cifar.best_trial": best.number})
    url = tracking.run_url(about["mlflow_run_id"], about["experiment"])
    _log.info("study %s: trial %d is best with %.2f %%: %s", name, best.number, 100 * accuracy, url)
    origin = {"text": f"study {name}, trial {best.number}", "study": name, "trial": best.number, "study_url": url}
    return _tuned(lane, best.params, origin)


def _with_known(client: "MlflowClient", lane: Json, data: Json, name: str) -> Json:
    """The lane with the parameters of the best registered version that a search led to, on the same data."""
    model = lane["config"]["model"]
    with tracking.tracking_errors():
        digest = load_version(S3Store(Settings().bucket), data["uri"]).digest
        known = registry.best_tuned(client, name, {MODEL: model, DATASET: digest})
    if known is None:
        return lane
    parameters = json.loads(known.tags["cifar.tuned_parameters"])
    parameters = {key: value for key, value in parameters.items() if key not in lane["fixed"]}
    _log.info("%s: parameters of version %s, %s", model, known.version, figures.in_words(parameters))
    return _tuned(lane, parameters, {"text": f"version {known.version}, {known.tags['cifar.parameters_from']}"})


def _tuned(lane: Json, parameters: Json, origin: Json) -> Json:
    config = asdict(apply(config_from_dict(lane["config"]), parameters))
    return {**lane, "config": config, "origin": {**origin, "parameters": parameters}}
