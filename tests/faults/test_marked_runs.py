"""A DAG run that a person marks as failed or success in Airflow leaves no MLflow run running."""

from typing import TYPE_CHECKING

import pytest

from cifar_tasks.cli.dag_run import trigger
from cifar_tasks.deployment.dag_ids import TRAINING_DAG
from cifar_tasks.tracking import runs
from tests.conftest import RunningStack
from tests.trainings import child_run
from tests.waiting import wait_until

if TYPE_CHECKING:
    from airflow_client.client import ApiClient


@pytest.mark.parametrize(("state", "status"), [("failed", "FAILED"), ("success", "FINISHED")])
def test_a_marked_dag_run_stops_its_training_and_ends_its_mlflow_runs(
    connected: RunningStack, pictures, airflow: "ApiClient", state, status
):
    from airflow_client.client.api.dag_run_api import DagRunApi
    from airflow_client.client.models.dag_run_patch_body import DAGRunPatchBody

    client = runs.mlflow_client()
    run = trigger(airflow, {"source": str(pictures), "models": ["cnn"], "epochs": 500})
    workflow = f"{TRAINING_DAG}/{run.run_id}"
    wait_until(lambda: any(child.data.metrics for child in child_run(client, workflow)), 150)
    DagRunApi(airflow).patch_dag_run(TRAINING_DAG, run.run_id, DAGRunPatchBody(state=state))
    wait_until(lambda: child_run(client, workflow)[0].info.status == "KILLED", 90)
    wait_until(lambda: child_run(client, workflow, "all")[0].info.status == status, 90)
