"""A port without a server, and a real MLflow without one: its client on a database and a folder of the tests."""

import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from mlflow import MlflowClient


@pytest.fixture
def closed_port() -> Iterator[int]:
    """Nobody listens there, and no other test can start a server there meanwhile."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.fixture(scope="session")
def mlflow_client(tmp_path_factory: pytest.TempPathFactory) -> "MlflowClient":
    from mlflow import MlflowClient

    database = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    if empty := os.environ.get("EMPTY_MLFLOW"):  # of `tests/mutants.py`, because to make one takes seconds
        shutil.copy(empty, database)
    return MlflowClient(f"sqlite:///{database}")


@pytest.fixture
def run_id(mlflow_client: "MlflowClient", tmp_path: Path) -> str:
    """A run in an experiment of its own."""
    experiment = mlflow_client.create_experiment(str(tmp_path), artifact_location=str(tmp_path / "artifacts"))
    return str(mlflow_client.create_run(experiment).info.run_id)


@pytest.fixture
def default_client(mlflow_client: "MlflowClient", monkeypatch: pytest.MonkeyPatch) -> "MlflowClient":
    """The same, where MLflow's functions and servers look for it when they are not told."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_client.tracking_uri)
    return mlflow_client
