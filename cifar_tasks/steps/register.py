"""Registration: a version of the registered model for each training run."""

import json
import logging

from cifar_tasks.data.versions import load_version
from cifar_tasks.settings import Settings
from cifar_tasks.steps.payloads import EvaluatedModel, RegisteredModel
from cifar_tasks.storage.s3 import S3Store
from cifar_tasks.tracking import model_registry, runs
from cifar_tasks.tracking.runs import DATASET, MODEL

_log = logging.getLogger(__name__)


def register_model(evaluated: EvaluatedModel) -> RegisteredModel:
    """A version for this training run, tagged with what it comes from and how it scores."""
    trained = evaluated.trained
    name, source = trained.plan.data.request.registered_model, trained.plan.params_source
    client, version = runs.mlflow_client(), load_version(S3Store(Settings().bucket), trained.plan.data.dataset_uri)
    tags = {
        MODEL: trained.plan.config.model,
        DATASET: version.digest,
        "cifar.dataset_uri": version.uri,
        "cifar.classes": json.dumps(version.classes),
        "cifar.placeholder": str(version.placeholder).lower(),
        "cifar.image_size": version.image_size,
        "cifar.resize": version.resize,
        "cifar.config_sha256": trained.config_sha256,
        "cifar.code_sha256": trained.code_sha256,
        "cifar.parameters": trained.parameters,
        "cifar.validation_accuracy": trained.validation_accuracy,
        "cifar.test_accuracy": evaluated.test_accuracy,
        "cifar.params_source": source.text if source else "recipe",
    }
    if source:
        tags |= {"cifar.tuned_params": json.dumps(source.params), "cifar.study": source.study or ""}
    with runs.tracking_errors():
        number = model_registry.register(client, name, trained.saved, trained.run_id, tags)
    _log.info("registered as version %d of %s", number, name)
    return RegisteredModel(evaluated=evaluated, mlflow_url=trained.mlflow_url, name=name, version=number)
