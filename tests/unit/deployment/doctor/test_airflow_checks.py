"""The log-in of Airflow, and Celery workers: Celery's own, in this process."""

from dataclasses import replace

import pytest

from tests.celery_worker import worker
from tests.unit.deployment.doctor.deployments import COMPOSE, answering, find


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
