"""A real MLflow without a server: its client on a database and a folder of the tests."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from mlflow import MlflowClient


@pytest.fixture(scope="session")
def mlflow_client(tmp_path_factory: pytest.TempPathFactory) -> "MlflowClient":
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db")


@pytest.fixture
def run_id(mlflow_client: "MlflowClient", tmp_path: Path) -> str:
    """A run in an experiment of its own."""
    experiment = mlflow_client.create_experiment(str(tmp_path), artifact_location=str(tmp_path / "artifacts"))
    return str(mlflow_client.create_run(experiment).info.run_id)
