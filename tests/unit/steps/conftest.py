"""What steps need, on this machine and without services: MLflow and studies in files, S3 in memory."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from cifar_tasks.config import Overrides, with_values
from cifar_tasks.data import preparation
from cifar_tasks.steps import (
    create_studies,
    dataset_line,
    evaluate,
    inputs,
    plan,
    prepare,
    promote,
    register,
    report,
    rollback,
    select_params,
    train,
)
from cifar_tasks.steps.payloads import EvaluatedModel, PreparedData, RunRequest, TrainedModel, TrainPlan, WorkflowRun
from cifar_tasks.tracking import runs
from tests.stores import InMemoryStore
from tests.unit.data.sources import NoiseSource, quiet

SMALL = {"train_images": 16, "validation_images": 10}
USERS_OF_STORAGE = (
    create_studies,
    dataset_line,
    evaluate,
    inputs,
    plan,
    prepare,
    promote,
    register,
    report,
    rollback,
    select_params,
    train,
)


@dataclasses.dataclass
class Services:
    store: InMemoryStore
    client: MlflowClient
    experiment: str

    def prepared(self, source: NoiseSource | None = None, **request: Any) -> PreparedData:
        """A dataset version of noise, and the MLflow run of a workflow run that asked for `request`."""
        version = preparation.prepare(source or NoiseSource(), self.store, 0, quiet)
        fields = {
            "source": "digits",
            "models": ["cnn"],
            "profile": "demo",
            "registered_model": f"of {self.experiment}",
            **request,
        }
        parent = self.client.create_run(self.experiment).info.run_id
        return PreparedData(
            workflow=WorkflowRun(id=f"cli/{parent}", name="mine"),
            request=RunRequest(**fields),
            dataset_uri=version.uri,
            parent_run_id=parent,
            experiment_id=self.experiment,
            mlflow_url="http://mlflow.example",
            banner=None,
        )


@pytest.fixture
def services(default_client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Services:
    return begin(default_client, tmp_path, monkeypatch)


def begin(client: MlflowClient, folder: Path, patch: pytest.MonkeyPatch) -> Services:
    """Let the steps use a store and an experiment of their own."""
    store = InMemoryStore()
    for step in USERS_OF_STORAGE:
        patch.setattr(step, "S3Store", lambda bucket, client=None: store)
    for step in (prepare, train):
        patch.setattr(step, "s3_client", lambda **limits: None)
    patch.setattr(train, "log_to_stdout", lambda level: None)
    patch.setattr(runs, "mlflow_client", lambda: client)
    patch.setenv("CIFAR_STUDIES_URL", f"sqlite:///{folder}/studies.db")
    patch.setenv("CIFAR_HOME", str(folder / "home"))
    experiment = client.create_experiment(str(folder), artifact_location=str(folder / "artifacts"))
    return Services(store, client, str(experiment))


@pytest.fixture
def small_plan(services: Services) -> TrainPlan:
    return small(services)


def small(services: Services) -> TrainPlan:
    """Of a training that takes a second."""
    (found,) = plan.plan_training(services.prepared(overrides=Overrides(epochs=2, batch_size=8)))
    return found.model_copy(update={"config": with_values(found.config, SMALL)})


@pytest.fixture(scope="session")
def evaluated_once(
    mlflow_client: MlflowClient, tmp_path_factory: pytest.TempPathFactory
) -> tuple[EvaluatedModel, dict[str, bytes], dict[str, bytes]]:
    """A model, and what storage holds before and after its evaluation."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", mlflow_client.tracking_uri)
        services = begin(mlflow_client, tmp_path_factory.mktemp("evaluated"), patch)
        trained = train.train_model(small(services))
        before = dict(services.store.objects)
        return evaluate.evaluate_model(trained), before, dict(services.store.objects)


@pytest.fixture
def trained(services: Services, evaluated_once: tuple[EvaluatedModel, dict[str, bytes], Any]) -> TrainedModel:
    """A model that is not evaluated yet."""
    evaluated, before, _ = evaluated_once
    services.store.objects |= before
    return evaluated.trained


@pytest.fixture
def evaluated(services: Services, evaluated_once: tuple[EvaluatedModel, Any, dict[str, bytes]]) -> EvaluatedModel:
    """The same model, evaluated; `registered_model` is of this test alone."""
    found, _, after = evaluated_once
    services.store.objects |= after
    data = found.trained.plan.data
    request = data.request.model_copy(update={"registered_model": f"of {services.experiment}"})
    changed = found.trained.plan.model_copy(update={"data": data.model_copy(update={"request": request})})
    return found.model_copy(update={"trained": found.trained.model_copy(update={"plan": changed})})
