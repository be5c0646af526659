"""Who gets into Airflow, and do its parts share their secrets?"""

import json
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

import requests

from cifar_tasks.deployment import stack
from cifar_tasks.deployment.airflow_api import airflow
from cifar_tasks.deployment.doctor.deployment import TIMEOUT, Deployment
from cifar_tasks.deployment.doctor.finding import Finding, failure, ok, skipped, warning
from cifar_tasks.errors import StackError
from cifar_tasks.storage.s3 import S3Store, s3_client, sha256_hex

if TYPE_CHECKING:
    from airflow_client.client import ApiClient

T = TypeVar("T")
FINGERPRINTS = "deployment/secrets.json"
"""Where `docker/deployment.py` records the SHA-256 of each secret that all parts of Airflow share."""


def log_in(deployment: Deployment) -> Finding:
    """The admin's password opens Airflow's API, and nothing else does."""
    address, password = deployment.airflow, deployment.airflow_password()
    if not address or not password:
        return skipped("no password of Airflow's admin here: CIFAR_AIRFLOW_PASSWORD is not set")
    status = requests.get(f"{address}/api/v2/dags", timeout=TIMEOUT).status_code
    if status not in (401, 403):
        return failure(
            f"who does not log in is answered ({status})", "Set AIRFLOW__CORE__AUTH_MANAGER as in docker-compose.yaml"
        )
    try:
        with airflow(address, stack.AIRFLOW_USER, password):
            return ok(f"{stack.AIRFLOW_USER} gets in; who does not log in is refused")
    except StackError:
        return failure(
            f"Airflow refuses the password of {stack.AIRFLOW_USER}",
            "cifar down, then cifar up"
            if deployment.embedded
            else "Let init set AIRFLOW_ADMIN_PASSWORD of .env: docker compose up -d init",
        )


def pool(deployment: Deployment) -> Finding:
    return judge_pool(pool_slots(deployment), deployment)


def judge_pool(slots: int | None, deployment: Deployment) -> Finding:
    wanted = deployment.settings.gpu_slots
    remedy = "Let it follow CIFAR_GPU_SLOTS: " + ("cifar up" if deployment.embedded else "docker compose up -d")
    if slots is None:
        return failure("Airflow has no pool gpu: no training can start", remedy)
    if slots != wanted:
        return warning(f"the pool gpu has {slots} slots, CIFAR_GPU_SLOTS says {wanted}", remedy)
    return ok(f"gpu: {slots} at a time, as CIFAR_GPU_SLOTS says")


def pool_slots(deployment: Deployment) -> int | None:
    """Trainings that Airflow starts at a time; None when it has no such pool."""
    from airflow_client.client.api.pool_api import PoolApi
    from airflow_client.client.exceptions import NotFoundException

    def slots(client: "ApiClient") -> int | None:
        try:
            return int(PoolApi(client).get_pool("gpu", _request_timeout=TIMEOUT).slots)
        except NotFoundException:
            return None

    return ask(deployment, slots)


def ask(deployment: Deployment, question: "Callable[[ApiClient], T]") -> T:
    """As the admin, through Airflow's public API."""
    with airflow(str(deployment.airflow), stack.AIRFLOW_USER, str(deployment.airflow_password())) as client:
        return question(client)


def shared_secrets(deployment: Deployment) -> Finding:
    if deployment.embedded:
        return skipped("all parts read them from one file: the stack of one machine")
    try:
        recorded = S3Store(deployment.settings.bucket, s3_client(attempts=1, read_timeout=TIMEOUT)).get(FINGERPRINTS)
    except KeyError:
        return failure(
            f"init has not recorded them ({FINGERPRINTS} in S3)", "docker compose up -d init; docker compose logs init"
        )
    return judge_shared_secrets(json.loads(recorded), os.environ)


def judge_shared_secrets(recorded: Mapping[str, str], variables: Mapping[str, str]) -> Finding:
    """`recorded`: variable → SHA-256 of its value."""
    missing = [name for name in recorded if not variables.get(name)]
    if missing:
        return failure(f"not set here: {', '.join(missing)}", "Copy them from the .env of the API server's machine")
    other = [name for name, digest in recorded.items() if sha256_hex(variables[name].encode()) != digest]
    if other:
        return failure(
            f"not the deployment's: {', '.join(other)}",
            "Copy it from the .env of the API server's machine; if it was changed on purpose: docker compose up -d",
        )
    return ok(f"the {len(recorded)} that init recorded")
