"""Around the search for parameters: studies are opened, and the best of their parameters chosen.

The trials between the two are trained by `steps.search`; nothing here loads torch.
"""

import json
import logging
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from optuna.distributions import distribution_to_json

from cifar_tasks.config import TrainConfig, chosen_models, config_from_dict, trial_config
from cifar_tasks.data import load_version
from cifar_tasks.errors import ConfigError
from cifar_tasks.settings import Settings
from cifar_tasks.storage.s3 import S3Store
from cifar_tasks.tracking import registry, runs
from cifar_tasks.tracking.provenance import code_digest
from cifar_tasks.tracking.runs import DATASET, MODEL
from cifar_tasks.tuning import SPACES, SharedStudy, apply, charts, recipe_parameters, study_name
from cifar_tasks.tuning.space import Space

if TYPE_CHECKING:
    from mlflow import MlflowClient

Json = dict[str, Any]

STUDY = "cifar.study"
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


def choose(lanes: list[Json], worked: list[Json], data: Json, name: str) -> list[Json]:
    """The lanes with the best parameters that their studies found; closes the studies' MLflow runs with what they show.

    A lane that was not tuned goes on with what is known from earlier runs.
    """
    client = runs.mlflow_client()
    studies = {each["model"]: each["study"] for each in worked}
    return [
        _with_best(client, lane, studies[lane["config"]["model"]])
        if lane["config"]["model"] in studies
        else _with_known(client, lane, data, name)
        for lane in lanes
    ]


def remember(lanes: list[Json], data: Json, name: str) -> list[Json]:
    """The lanes with the best parameters that earlier searches found for the same data, as the registry knows them."""
    client = runs.mlflow_client()
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
        client = runs.mlflow_client()
        with runs.tracking_errors():
            experiment = runs.experiment_id(client, Settings().experiment)
            title = f"search {config.model}"
            tags = {STUDY: name, MODEL: title}
            run = runs.open_run(client, experiment, tags, title, parent=data["parent_run_id"])
            runs.log_tags(client, run.info.run_id, {DATASET: version.digest})
        about = {"model": config.model, "dataset": version.name, "dataset_uri": version.uri}
        for key, value in {**about, "experiment": experiment, "mlflow_run_id": run.info.run_id}.items():
            shared.study.set_user_attr(key, value)
        # The recipe is the first trial: a search that finds nothing better keeps it.
        shared.study.enqueue_trial(recipe_parameters(config, space), skip_if_exists=True)
    _log.info("study %s: %d trials so far", name, len(shared.trials))
    return name


def _with_best(client: "MlflowClient", lane: Json, name: str) -> Json:
    study = SharedStudy(name)
    about, (best, accuracy) = study.study.user_attrs, study.best()
    with runs.tracking_errors(), runs.closing(client, about["mlflow_run_id"]):
        charts.log_study(client, about["mlflow_run_id"], study.study)
        runs.log_metrics(client, about["mlflow_run_id"], {"best_accuracy": accuracy, "trials": len(study.trials)})
        runs.log_tags(client, about["mlflow_run_id"], {"cifar.best_trial": best.number})
    url = runs.run_url(about["mlflow_run_id"], about["experiment"])
    _log.info("study %s: trial %d is best with %.2f %%: %s", name, best.number, 100 * accuracy, url)
    origin = {"text": f"study {name}, trial {best.number}", "study": name, "trial": best.number, "study_url": url}
    return _tuned(lane, best.params, origin)


def _with_known(client: "MlflowClient", lane: Json, data: Json, name: str) -> Json:
    """The lane with the parameters of the best registered version that a search led to, on the same data."""
    model = lane["config"]["model"]
    with runs.tracking_errors():
        digest = load_version(S3Store(Settings().bucket), data["uri"]).digest
        known = registry.best_tuned(client, name, {MODEL: model, DATASET: digest})
    if known is None:
        return lane
    parameters = json.loads(known.tags["cifar.tuned_parameters"])
    parameters = {key: value for key, value in parameters.items() if key not in lane["fixed"]}
    _log.info("%s: parameters of version %s, %s", model, known.version, charts.in_words(parameters))
    return _tuned(lane, parameters, {"text": f"version {known.version}, {known.tags['cifar.parameters_from']}"})


def _tuned(lane: Json, parameters: Json, origin: Json) -> Json:
    config = asdict(apply(config_from_dict(lane["config"]), parameters))
    return {**lane, "config": config, "origin": {**origin, "parameters": parameters}}
