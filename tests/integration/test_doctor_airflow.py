"""`cifar doctor` on an Airflow that runs, with faults put in."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from airflow_client.client.api.dag_api import DAGApi
from airflow_client.client.api.import_error_api import ImportErrorApi
from airflow_client.client.api.pool_api import PoolApi
from airflow_client.client.models.dag_patch_body import DAGPatchBody
from airflow_client.client.models.pool_body import PoolBody

from cifar_tasks.cli.dag_run import trigger
from cifar_tasks.deployment.dag_ids import PROMOTION_DAG, TRAINING_DAG
from cifar_tasks.deployment.doctor import CHECKS
from cifar_tasks.deployment.doctor.check_runner import Deployment, Finding, find_deployment, run_checks
from cifar_tasks.errors import StackError
from cifar_tasks.settings import read_settings
from tests.conftest import RunningStack

if TYPE_CHECKING:
    from airflow_client.client import ApiClient


@pytest.fixture
def deployment(connected: RunningStack) -> Deployment:
    return find_deployment(read_settings())


def check(name: str, deployment: Deployment) -> Finding:
    """The result of one check, without those that it needs."""
    return run_checks(deployment, [each for each in CHECKS if each.name == name])[name]


@contextmanager
def without_pool(airflow: "ApiClient") -> Iterator[None]:
    pools = PoolApi(airflow)
    pool = pools.get_pool("gpu")
    pools.delete_pool("gpu")
    try:
        yield
    finally:
        pools.post_pool(PoolBody(name="gpu", slots=pool.slots, description=pool.description))


def test_a_stack_with_airflow_is_ok(deployment: Deployment) -> None:
    results = run_checks(deployment, CHECKS)
    found = {check.name: results[check.name].status for check in CHECKS if check.area != "This machine"}
    assert "failure" not in found.values()
    assert "warning" not in found.values()
    assert {found[name] for name in ("Airflow", "Airflow components", "Airflow log-in", "gpu pool")} == {"ok"}
    assert {found[name] for name in ("Redis", "queues", "GPU slots", "visibility timeout")} == {"skipped"}


def test_an_admin_who_is_refused_is_a_failure_and_the_password_is_not_shown(deployment: Deployment) -> None:
    found = check("Airflow log-in", replace(deployment, airflow_password="correct horse"))
    assert found.status == "failure"
    assert "refused the log-in of admin" in found.message
    assert "cifar down, then cifar up" in found.remedy
    assert "correct horse" not in repr(found)


def test_a_pool_of_another_size_is_a_warning_and_none_a_failure(
    deployment: Deployment, airflow: "ApiClient", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIFAR_GPU_SLOTS", "7")
    other = check("gpu pool", replace(deployment, settings=read_settings()))
    assert (other.status, other.message) == ("warning", "2 slots, CIFAR_GPU_SLOTS is 7")
    assert other.remedy == "Apply CIFAR_GPU_SLOTS: cifar down, then cifar up"
    with without_pool(airflow):
        none = check("gpu pool", deployment)
    assert none.status == "failure"
    assert "no pool gpu" in none.message


def test_a_broker_must_wait_longer_than_work_and_queue_together(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    default = check("visibility timeout", deployment)
    assert default.message == "86400 s; a task may work 86400 s and wait 600 s in the queue"
    assert default.status == "failure"
    assert "VISIBILITY_TIMEOUT" in default.remedy
    monkeypatch.setenv("AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT", "3600")
    for seconds, status in (("90000", "failure"), ("90001", "ok")):
        monkeypatch.setenv("AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT", seconds)
        assert check("visibility timeout", deployment).status == status


def test_a_dag_that_is_paused_is_a_warning_and_a_demo_refuses_to_wait_for_it(
    deployment: Deployment, airflow: "ApiClient"
) -> None:
    assert check("training DAG", deployment).status == "ok"
    api = DAGApi(airflow)
    api.patch_dag(TRAINING_DAG, DAGPatchBody(is_paused=True))
    try:
        found = check("training DAG", deployment)
        with pytest.raises(StackError, match=f"{TRAINING_DAG} is paused.*/dags/{TRAINING_DAG}"):
            trigger(airflow, {"source": "digits"})
    finally:
        api.patch_dag(TRAINING_DAG, DAGPatchBody(is_paused=False))
    assert found.status == "warning"
    assert "is paused" in found.message
    assert "switch" in found.remedy


def test_another_dag_that_is_paused_is_a_warning(deployment: Deployment, airflow: "ApiClient") -> None:
    assert (check("other DAGs", deployment).status, check("other DAGs", deployment).message) == ("ok", "none is paused")
    api = DAGApi(airflow)
    api.patch_dag(PROMOTION_DAG, DAGPatchBody(is_paused=True))
    try:
        found = check("other DAGs", deployment)
    finally:
        api.patch_dag(PROMOTION_DAG, DAGPatchBody(is_paused=False))
    assert (found.status, found.message) == ("warning", f"paused: {PROMOTION_DAG}")
    assert "switches" in found.remedy


def test_a_dag_that_airflow_does_not_know_is_a_failure(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cifar_tasks.deployment.doctor.airflow_checks.TRAINING_DAG", "another_dag")
    found = check("training DAG", deployment)
    assert (found.status, found.message) == ("failure", "Airflow does not know another_dag")
    assert "airflow-dag-processor.log" in found.remedy


def test_another_schedule_than_that_of_the_setting_is_a_warning(deployment: Deployment) -> None:
    found = check(
        "training DAG", replace(deployment, settings=deployment.settings.model_copy(update={"schedule": "@daily"}))
    )
    assert found.status == "warning"
    assert "runs when it is triggered; CIFAR_SCHEDULE is @daily" in found.message


def test_the_error_of_a_dag_file_that_cannot_be_imported_is_shown(
    deployment: Deployment, airflow: "ApiClient", monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = SimpleNamespace(
        filename="cifar10_training.py", stack_trace="Traceback\n  line\nConfigError: no model 'vgg'"
    )
    answer = SimpleNamespace(import_errors=[broken])
    monkeypatch.setattr(ImportErrorApi, "get_import_errors", lambda self, **_: answer)
    found = check("training DAG", deployment)
    assert found.status == "failure"
    assert found.message == "cifar10_training.py: ConfigError: no model 'vgg'"
    with pytest.raises(StackError, match=r"cannot import the DAG.*no model 'vgg'"):
        trigger(airflow, {"source": "digits"}, patience=2)
