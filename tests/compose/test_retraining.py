"""A delivery to a watched folder, from the check of the dataset line to the promotion."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from mlflow import MlflowClient

from cifar_tasks.cli.dag_run import DagRun, trigger
from cifar_tasks.deployment.dag_ids import DATASET_DAG, TRAINING_DAG
from tests.compose.conftest import MODEL, api, finish
from tests.compose.deployment import LINE, Deployment
from tests.conftest import COLOURS, picture
from tests.waiting import wait_until

if TYPE_CHECKING:
    from airflow_client.client.models.dag_run_response import DAGRunResponse

if not os.environ.get("COMPOSE"):
    pytest.skip("needs a Docker engine and 40 minutes: `make test-compose`", allow_module_level=True)


def deliver(folder: Path) -> None:
    random = np.random.default_rng(1)
    for split, count in (("train", 60), ("test", 20)):
        for name, colour in COLOURS.items():
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                (folder / split / name / f"{number:03}.png").write_bytes(picture(colour, random))
    (folder / "_COMPLETE").touch()


def test_a_delivery_to_a_watched_folder_is_trained_on_and_decided_about(
    deployment: Deployment, tracking: Callable[[str], MlflowClient]
):
    deployment.compose("up", "-d")
    deployment.wait_until_healthy(240)
    deliver(deployment.delivered)
    check = trigger(api(deployment), {"line": LINE}, DATASET_DAG, patience=120)
    assert finish(deployment, check, 300) == "success", [(task.task_id, task.state) for task in check.tasks()]

    def trainings() -> "list[DAGRunResponse]":
        from airflow_client.client.api.dag_run_api import DagRunApi

        found = DagRunApi(api(deployment)).get_dag_runs(TRAINING_DAG, limit=100).dag_runs
        return [run for run in found if run.run_type.value == "asset_triggered"]

    wait_until(trainings, 120)
    (started,) = trainings()
    training = DagRun(api(deployment), str(started.dag_run_id))
    assert finish(deployment, training, 900) == "success", [(task.task_id, task.state) for task in training.tasks()]

    of_line = f"name = '{MODEL}' AND tags.`cifar.line` = '{LINE}'"
    (version,) = tracking("reader").search_model_versions(of_line)
    assert version.tags["cifar.workflow"] == f"{TRAINING_DAG}/{started.dag_run_id}"
    number = int(version.version)
    wait_until(lambda: "cifar.decision" in tracking("reader").get_model_version(MODEL, str(number)).tags, 300)
    printed = deployment.compose("run", "--rm", "-T", "cifar", "trace", str(number)).stdout
    assert LINE in printed
