"""`cifar doctor` on an Airflow whose Celery workers come and go. They run in this process."""

from dataclasses import replace

import pytest

from cifar_tasks.deployment.doctor.check_runner import Deployment
from tests.celery_worker import worker
from tests.integration.test_doctor_airflow import check, deployment  # noqa: F401 – a fixture


def test_slots_without_workers_and_workers_without_slots_are_a_warning(
    deployment: Deployment,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AIRFLOW__CELERY__BROKER_URL", "memory://")
    short = replace(deployment, timeout=3)
    idle = check("GPU slots", short)
    assert (idle.status, idle.message) == ("warning", "2 slots, 0 GPU workers with room for 0 trainings")
    assert "CIFAR_GPU_SLOTS" in idle.remedy
    with worker("gpu"):
        assert check("GPU slots", short).status == "ok"
        with worker("default"):
            assert check("GPU slots", short).message == "2 slots, 1 GPU workers with room for 2 trainings"
