"""The log-in of Airflow, and Celery workers: Celery's own, in this process."""

from dataclasses import replace

import pytest

from cifar_tasks.deployment.dag_ids import TRAINING_DAG
from cifar_tasks.deployment.doctor.check_runner import Finding
from tests.celery_worker import worker
from tests.unit.deployment.doctor.deployments import COMPOSE, Server, answering, find, handled_by


def test_an_airflow_that_answers_without_log_in_is_a_failure() -> None:
    with answering(b"[]") as address:
        result = find("Airflow log-in", replace(COMPOSE, airflow_url=address, airflow_password="correct horse"))
    assert (result.status, result.message) == ("failure", "a request without log-in gets 200")
    assert "AUTH_MANAGER" in result.remedy


def test_airflow_without_a_known_password_is_skipped() -> None:
    with answering(b"", 401) as address:
        result = find("Airflow log-in", replace(COMPOSE, airflow_url=address))
    assert result.status == "skipped"
    assert "CIFAR_AIRFLOW_PASSWORD is not set" in result.message


@pytest.mark.parametrize(
    ("setting", "paused", "status", "message"),
    [
        (None, False, "ok", "runs at 15 3 * * *, next 2030-01-02 03:15 UTC"),
        ("15 3 * * *", False, "ok", "runs at 15 3 * * *, next 2030-01-02 03:15 UTC"),
        ("@daily", False, "warning", "runs at 15 3 * * *, next 2030-01-02 03:15 UTC; CIFAR_SCHEDULE is @daily"),
        (None, True, "warning", "is paused; it runs at 15 3 * * *, next 2030-01-02 03:15 UTC"),
    ],
)
def test_the_schedule_of_the_training_dag_is_told(setting: str | None, paused: bool, status: str, message: str) -> None:
    found = check_training_dag(setting, is_paused=paused)
    assert (found.status, found.message) == (status, message)


SCHEDULED = {
    "dag_display_name": TRAINING_DAG,
    "dag_id": TRAINING_DAG,
    "file_token": "token",
    "fileloc": "dags/training.py",
    "has_import_errors": False,
    "has_task_concurrency_limits": False,
    "is_backfillable": False,
    "is_stale": False,
    "max_active_tasks": 16,
    "max_consecutive_failed_dag_runs": 0,
    "next_dagrun_run_after": "2030-01-02T03:15:00Z",
    "owners": [],
    "tags": [],
    "timetable_partitioned": False,
    "timetable_periodic": True,
    "timetable_summary": "15 3 * * *",
}
"""Airflow's answer about a DAG."""


def test_a_schedule_beside_a_dataset_line_is_that_of_the_setting() -> None:
    found = check_training_dag("15 3 * * *", timetable_summary="Asset or 15 3 * * *")
    assert found.status == "ok"
    assert found.message == "runs at 15 3 * * * and for new versions of a dataset line, next 2030-01-02 03:15 UTC"


def test_a_schedule_that_airflow_writes_in_another_way_is_the_same() -> None:
    assert check_training_dag("@daily", timetable_summary="0 0 * * *").status == "ok"


def check_training_dag(setting: str | None, **shown: object) -> Finding:
    """With this CIFAR_SCHEDULE, in an Airflow that shows these values of the DAG."""

    class Airflow(Server):
        def answer(self) -> None:
            if self.path == "/auth/token":
                self.send_json({"access_token": "token"})
            elif self.path.endswith("/importErrors"):
                self.send_json({"import_errors": [], "total_entries": 0})
            else:
                self.send_json(SCHEDULED | {"is_paused": False} | shown)

    with handled_by(Airflow) as address:
        settings = COMPOSE.settings.model_copy(update={"schedule": setting})
        return find("training DAG", replace(COMPOSE, settings=settings, airflow_url=address, airflow_password="word"))


def test_a_queue_that_no_worker_consumes_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CELERY__BROKER_URL", "memory://")
    deployment = replace(COMPOSE, timeout=2)
    with worker("default"):
        alone = find("queues", deployment)
        with worker("gpu"):
            both = find("queues", deployment)
    assert (alone.status, alone.message) == ("failure", "default: 1 workers, gpu: 0 workers")
    assert "docker compose up -d worker gpu-worker" in alone.remedy
    assert (both.status, both.message) == ("ok", "default: 1 workers, gpu: 1 workers")
