"""What steps need, on this machine and without services: MLflow and studies in files, S3 in memory."""

import dataclasses
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import pytest
from mlflow import MlflowClient

from cifar_tasks import steps
from cifar_tasks.config import Overrides, with_values
from cifar_tasks.data import preparation
from cifar_tasks.steps import evaluate, plan, train
from cifar_tasks.steps.payloads import EvaluatedModel, PreparedData, RunRequest, TrainedModel, TrainPlan, WorkflowRun
from cifar_tasks.tracking import runs
from tests.stores import InMemoryStore
from tests.unit.data.sources import NoiseSource, quiet

SMALL = {"train_images": 16, "validation_images": 10}
STEPS = [import_module(f"cifar_tasks.steps.{found.name}") for found in iter_modules(steps.__path__)]


@dataclasses.dataclass
class Services:
    store: InMemoryStore
    client: MlflowClient
    experiment: str

    @property
    def registered_model(self) -> str:
        """Name of one that no other test uses."""
        return f"of {self.experiment}"

    def prepared(self, source: NoiseSource | None = None, **request: Any) -> PreparedData:
        """A dataset version of noise, and the MLflow run of a workflow run that asked for `request`."""
        version = preparation.prepare(source or NoiseSource(), self.store, 0, quiet)
        fields = {
            "source": "digits",
            "models": ["cnn"],
            "profile": "demo",
            "registered_model": self.registered_model,
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
    return services_in(default_client, tmp_path, monkeypatch)


def services_in(client: MlflowClient, folder: Path, patch: pytest.MonkeyPatch) -> Services:
    """Let the steps use a store and an experiment of their own."""
    store = InMemoryStore()
    for step in STEPS:
        for name, double in (("S3Store", lambda bucket, client=None: store), ("s3_client", lambda **limits: None)):
            if hasattr(step, name):
                patch.setattr(step, name, double)
    patch.setattr(train, "log_to_stdout", lambda level: None)
    patch.setattr(runs, "mlflow_client", lambda: client)
    patch.setenv("CIFAR_STUDIES_URL", f"sqlite:///{folder}/studies.db")
    patch.setenv("CIFAR_HOME", str(folder / "home"))
    experiment = client.create_experiment(str(folder), artifact_location=str(folder / "artifacts"))
    return Services(store, client, str(experiment))


@pytest.fixture
def small_plan(services: Services) -> TrainPlan:
    return small_training(services)


def small_training(services: Services) -> TrainPlan:
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
        services = services_in(mlflow_client, tmp_path_factory.mktemp("evaluated"), patch)
        trained = train.train_model(small_training(services))
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
    """The same model, evaluated."""
    found, _, after = evaluated_once
    services.store.objects |= after
    return found
