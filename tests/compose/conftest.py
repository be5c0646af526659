"""The deployment for tests: a copy of the tree with secrets, ports and a project name of its own."""

import os
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from mlflow import MlflowClient

from cifar_tasks.cli.dag_run import ENDED, DagRun, trigger
from tests.compose.deployment import Deployment, deployed

if TYPE_CHECKING:
    from airflow_client.client import ApiClient

EXPERIMENT, MODEL = "cifar10-training", "cifar10-classifier"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first test here builds the images."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.timeout(4000))


@pytest.fixture(scope="session")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Built and started once; all tests of this folder share it."""
    if subprocess.run(["docker", "info"], capture_output=True, check=False, timeout=30).returncode:
        pytest.fail("COMPOSE is set, and no Docker engine answers: start one, or run the other tests only")
    with deployed(tmp_path_factory.mktemp("deployment"), shlex.split(os.environ["COMPOSE"])) as running:
        yield running


@pytest.fixture
def tracking(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], MlflowClient]:
    """MLflow through its published port, as one of its users."""

    def client(user: str) -> MlflowClient:
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", user)
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", deployment.secrets[f"MLFLOW_{user.upper()}_PASSWORD"])
        return MlflowClient(deployment.mlflow_url)

    return client


def start(deployment: Deployment, **conf: object) -> DagRun:
    """Trigger the DAG, as the form does. Its client stays logged in for a day."""
    return trigger(api(deployment), {"source": "digits", "force": True, **conf}, patience=120)


def finish(deployment: Deployment, run: DagRun, seconds: float) -> str:
    """The state in which the run ended; Airflow itself may be away for a while."""
    from airflow_client.client.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    deadline, state = time.monotonic() + seconds, ""
    while time.monotonic() < deadline:
        try:
            state = DagRun(api(deployment), run.run_id, run.dag_id).state()
        except (ApiException, HTTPError, OSError, AssertionError):
            state = "unknown"
        if state in ENDED:
            return state
        time.sleep(3)
    pytest.fail(f"the run is still {state} after {seconds:.0f} s")


def api(deployment: Deployment) -> "ApiClient":
    """Airflow's API, logged in."""
    from airflow_client.client import ApiClient, Configuration

    return ApiClient(Configuration(host=deployment.airflow_url, access_token=deployment.token()))


def kept(deployment: Deployment, client: MlflowClient) -> dict[str, Any]:
    """What must survive any restart: runs with their metrics, model versions, the champion, DAG runs."""
    experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
    return {
        "runs": {run.info.run_id: run.data.metrics for run in client.search_runs([experiment])},
        "versions": {found.version: found.tags for found in client.search_model_versions(f"name = '{MODEL}'")},
        "champion": client.get_model_version_by_alias(MODEL, "champion").version,
        "dag_runs": [(run["dag_run_id"], run["state"]) for run in deployment.airflow("dagRuns")["dag_runs"]],
    }
