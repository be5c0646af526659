"""All checks, and how they are run: at the same time, each for itself, none of them able to stop another."""

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace

from cifar_tasks.deployment.doctor import (
    airflow_checks,
    databases,
    machine,
    service_checks,
    storage_checks,
    tracking_checks,
    workers,
)
from cifar_tasks.deployment.doctor.deployment import TIMEOUT, Deployment, known_secrets
from cifar_tasks.deployment.doctor.finding import CannotTell, Finding, failure, skipped

SHORTEST_SECRET = 8
"""Characters. Replacing shorter ones would tear words apart."""


@dataclass(frozen=True)
class Check:
    area: str
    name: str
    look: Callable[[Deployment], Finding]
    needs: tuple[str, ...] = ()
    """Names of earlier checks; unless they are well there is nothing to look at, and they say what is wrong."""


@dataclass(frozen=True)
class Result:
    area: str
    check: str
    finding: Finding


CHECKS = (
    Check("Services", "PostgreSQL", service_checks.postgres),
    Check("Services", "Redis", service_checks.redis),
    Check("Services", "S3", service_checks.s3),
    Check("Services", "MLflow", service_checks.mlflow),
    Check("Services", "Airflow", service_checks.airflow),
    Check("Services", "Airflow's parts", service_checks.airflow_parts, ("Airflow",)),
    Check("Storage", "write and read", storage_checks.write_and_read, ("S3",)),
    Check("Storage", "conditional write", storage_checks.conditional_write, ("S3",)),
    Check("Storage", "strangers", storage_checks.strangers),
    Check("Storage", "deleting data", storage_checks.deleting_data, ("S3",)),
    Check("Storage", "clock of S3", storage_checks.clock),
    Check("Tracking", "artifacts", tracking_checks.artifacts, ("MLflow",)),
    Check("Tracking", "log-in to MLflow", tracking_checks.log_in),
    Check("Tracking", "clock of MLflow", tracking_checks.clock),
    Check("Databases", "roles", databases.roles, ("PostgreSQL",)),
    Check("Databases", "separation", databases.separation, ("roles",)),
    Check("Airflow", "log-in to Airflow", airflow_checks.log_in, ("Airflow",)),
    Check("Airflow", "pool of trainings", airflow_checks.pool, ("Airflow", "log-in to Airflow")),
    Check("Airflow", "shared secrets", airflow_checks.shared_secrets, ("S3",)),
    Check("Workers", "queues", workers.queues, ("Redis",)),
    Check("Workers", "GPU slots", workers.gpu_slots, ("Redis", "pool of trainings")),
    Check("Workers", "redelivery", workers.redelivery, ("Redis", "Airflow", "log-in to Airflow")),
    Check("This machine", "disk", machine.disk),
    Check("This machine", "memory", machine.memory),
    Check("This machine", "shared memory", machine.shared_memory),
    Check("This machine", "GPU", machine.gpu),
)


def examine(deployment: Deployment, checks: Collection[Check] = CHECKS) -> list[Result]:
    """What each check says, in their order. Never raises for what is wrong with the deployment."""
    futures: dict[str, Future[Finding]] = {}
    secrets = sorted({value for value in _secrets(deployment) if len(value) >= SHORTEST_SECRET}, key=len, reverse=True)
    with _impatient_mlflow(), ThreadPoolExecutor(len(checks)) as pool:
        for check in checks:
            needs = {name: futures[name] for name in check.needs}
            futures[check.name] = pool.submit(_look, check, deployment, needs)
        return [Result(check.area, check.name, _without(secrets, futures[check.name].result())) for check in checks]


def _look(check: Check, deployment: Deployment, needs: Mapping[str, Future[Finding]]) -> Finding:
    for name, future in needs.items():
        needed = future.result()
        if needed.verdict == "failure":
            return skipped(f"not looked at: see {name}")
        if needed.verdict == "skipped":
            return needed
    try:
        return check.look(deployment)
    except CannotTell as error:
        return skipped(f"not looked at: {error}")
    except Exception as error:  # whatever a client library raises is one line of the table
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return failure(f"could not be examined: {first}", "Look at the other lines and at the service's log; try again")


def _secrets(deployment: Deployment) -> Iterator[str]:
    yield from known_secrets(os.environ)
    yield deployment.airflow_password() or ""


def _without(secrets: Collection[str], finding: Finding) -> Finding:
    """A client library's message may quote the URL that it was given."""
    says, remedy = finding.says, finding.remedy
    for secret in secrets:
        says, remedy = says.replace(secret, "***"), remedy.replace(secret, "***")
    return replace(finding, says=says, remedy=remedy)


@contextmanager
def _impatient_mlflow() -> Iterator[None]:
    """MLflow's client waits minutes for a server that is gone; it takes its patience from the environment only."""
    wanted = {"MLFLOW_HTTP_REQUEST_TIMEOUT": str(int(TIMEOUT)), "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
