"""A stack whose schedule is due each minute."""

from pathlib import Path

import pytest
from airflow_client.client.api.dag_run_api import DagRunApi

from cifar_tasks.cli.dag_run import DAG, ENDED
from cifar_tasks.deployment import stack as embedded
from cifar_tasks.deployment.airflow_api import airflow
from cifar_tasks.tracking import runs
from tests.conftest import connect
from tests.waiting import wait_until


def test_a_schedule_that_is_due_trains_with_the_defaults_of_the_settings(
    own_home: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    defaults = {"SCHEDULE": "* * * * *", "SOURCE": str(pictures), "MODELS": "cnn", "REGISTERED_MODEL": "scheduled"}
    for name, value in defaults.items():
        monkeypatch.setenv(f"CIFAR_{name}", value)
    embedded.up(own_home, print)
    connect(monkeypatch, embedded.environment(own_home))
    url = embedded.environment(own_home)["CIFAR_AIRFLOW_URL"]
    with airflow(url, embedded.AIRFLOW_USER, embedded.airflow_password(own_home)) as client:

        def first_ended() -> list[tuple[str, str]]:
            found = DagRunApi(client).get_dag_runs(DAG, order_by=["run_after"]).dag_runs
            return [(run.run_type.value, run.state.value) for run in found[:1] if run.state.value in ENDED]

        wait_until(lambda: bool(first_ended()), 300)
        assert first_ended() == [("scheduled", "success")]
    (version,) = runs.mlflow_client().search_model_versions("name = 'scheduled' AND version_number = 1")
    assert version.tags["cifar.model"] == "cnn"
