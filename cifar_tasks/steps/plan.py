"""The second task: what to train on the prepared data."""

import logging

from cifar_tasks.config import with_values
from cifar_tasks.data.versions import DatasetVersion, load_version
from cifar_tasks.models import get_model
from cifar_tasks.settings import Settings
from cifar_tasks.steps.payloads import PreparedData, RunRequest, TrainPlan
from cifar_tasks.storage.s3 import S3Store
from cifar_tasks.tracking import runs
from cifar_tasks.tracking.champion_weights import ChampionWeights, find_champion_weights

_log = logging.getLogger(__name__)


def plan_training(data: PreparedData) -> list[TrainPlan]:
    """A training plan for each model of the request: its recipe with the overrides that the user has set."""
    request, version = data.request, load_version(S3Store(Settings().bucket), data.dataset_uri)
    overrides = request.overrides_for(version.placeholder)

    def plan(name: str) -> TrainPlan:
        config = get_model(name).config(request.profile, overrides)
        start = find_start(request, name, version) if request.start_from == "champion" else None
        if name in request.tune and start and start.hidden_units is not None:  # trials must fit its weights
            config = with_values(config, {"hidden_units": start.hidden_units})
        return TrainPlan(data=data, config=config, fixed=list(overrides.given()), start=start)

    return [plan(name) for name in request.models]


def find_start(request: RunRequest, model: str, version: DatasetVersion) -> ChampionWeights | None:
    """The champion's weights; none, with a warning, if this model cannot start from them."""
    with runs.tracking_errors():
        found = find_champion_weights(runs.mlflow_client(), request.registered_model, model, version.classes)
    if isinstance(found, str):
        _log.warning("%s does not start from the champion but from the recipe: %s", model, found)
        return None
    _log.info("%s starts from the champion, %s", model, found.describe())
    return found
