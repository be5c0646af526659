"""Stacks whose schedule is due each minute."""

import json
from pathlib import Path

import pytest
from airflow_client.client.api.dag_run_api import DagRunApi

from cifar_tasks.cli.dag_run import ENDED
from cifar_tasks.deployment import stack as embedded
from cifar_tasks.deployment.airflow_api import airflow
from cifar_tasks.deployment.dag_ids import DATASET_DAG, TRAINING_DAG
from cifar_tasks.settings import Settings
from cifar_tasks.storage.s3 import S3Store
from cifar_tasks.tracking import runs
from tests.conftest import connect
from tests.month import LINE, MODEL, PREFIX, Month
from tests.waiting import wait_until
from tests.watched_line import LENIENT, MARKER, started_airflow


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
            found = DagRunApi(client).get_dag_runs(TRAINING_DAG, order_by=["run_after"]).dag_runs
            return [(run.run_type.value, run.state.value) for run in found[:1] if run.state.value in ENDED]

        wait_until(lambda: bool(first_ended()), 300)
        assert first_ended() == [("scheduled", "success")]
    (version,) = runs.mlflow_client().search_model_versions("name = 'scheduled' AND version_number = 1")
    assert version.tags["cifar.model"] == "cnn"


@pytest.mark.timeout(1200)
def test_a_line_is_checked_when_the_schedule_is_due_and_its_second_model_starts_from_the_champion(
    own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = {"source": f"s3://cifar/{PREFIX}", "image_size": 16, "marker": MARKER, "settle_seconds": 1}
    settings = {
        "DATASET_LINES": json.dumps({LINE: line}),
        "DATASET_SCHEDULE": "* * * * *",
        "DATASET_LIMITS": json.dumps(LENIENT),
        "SOURCE": f"line:{LINE}",
        "MODELS": "cnn",
        "START_FROM": "champion",
        "REGISTERED_MODEL": MODEL,
    }
    for name, value in settings.items():
        monkeypatch.setenv(f"CIFAR_{name}", value)
    with started_airflow(own_home, monkeypatch) as client:
        store = S3Store(Settings().bucket)
        month = Month(client, store, store, LINE, PREFIX, runs.mlflow_client())
        month.upload(10, "test")
        for number, each in enumerate((40, 100), start=1):
            month.upload(each)
            month.complete()
            decided = month.decisions(number)
        checks = DagRunApi(client).get_dag_runs(DATASET_DAG, limit=100).dag_runs
        assert "scheduled" in {run.run_type.value for run in checks}
        assert "manual" not in {run.run_type.value for run in checks}
        first, second = (entry.decision["candidate"]["initial_weights"] for entry in decided)
        assert first == "random"
        assert second.startswith("version 1 (SHA-256 ")
        assert [version.tags["cifar.initial_weights"] for version in month.versions()] == [first, second]
