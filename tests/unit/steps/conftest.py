"""What steps need, on this machine and without services: MLflow and studies in files, S3 in memory."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from cifar_tasks.data.preparation import prepare
from cifar_tasks.steps import create_studies, inputs, plan, report, select_params, train
from cifar_tasks.steps.payloads import PreparedData, RunRequest, WorkflowRun
from cifar_tasks.tracking import runs
from tests.stores import InMemoryStore
from tests.unit.data.sources import NoiseSource, quiet


@dataclasses.dataclass
class Services:
    store: InMemoryStore
    client: MlflowClient
    experiment: str

    def prepared(self, source: NoiseSource | None = None, **request: Any) -> PreparedData:
        """A dataset version of noise, and the MLflow run of a workflow run that asked for `request`."""
        version = prepare(source or NoiseSource(), self.store, 0, quiet)
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
    store = InMemoryStore()
    for step in (create_studies, inputs, plan, report, select_params, train):
        monkeypatch.setattr(step, "S3Store", lambda bucket, client=None: store)
    monkeypatch.setattr(train, "s3_client", lambda **limits: None)
    monkeypatch.setattr(train, "log_to_stdout", lambda level: None)
    monkeypatch.setattr(runs, "mlflow_client", lambda: default_client)
    monkeypatch.setenv("CIFAR_STUDIES_URL", f"sqlite:///{tmp_path}/studies.db")
    monkeypatch.setenv("CIFAR_HOME", str(tmp_path / "home"))
    experiment = default_client.create_experiment(str(tmp_path), artifact_location=str(tmp_path / "artifacts"))
    return Services(store, default_client, str(experiment))
