"""The second task: what to train on the prepared data."""

from cifar_tasks.data.versions import load_version
from cifar_tasks.models import get_model
from cifar_tasks.settings import Settings
from cifar_tasks.steps.payloads import PreparedData, TrainPlan
from cifar_tasks.storage.s3 import S3Store


def plan_training(data: PreparedData) -> list[TrainPlan]:
    """A training plan for each model of the request: its recipe with the overrides that the user has set."""
    request = data.request
    overrides = request.overrides_for(load_version(S3Store(Settings().bucket), data.dataset_uri).placeholder)
    return [
        TrainPlan(data=data, config=get_model(name).config(request.profile, overrides), fixed=list(overrides.given()))
        for name in request.models
    ]
