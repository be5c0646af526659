"""What the services find when they start: tables, the admin, the pool, buckets with their rules, MLflow's users.

Runs before each start and changes only what differs; a password that was changed in `.env` is changed here.
"""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import requests
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

ADMIN = "admin"
BUCKETS = ("cifar", "mlflow", "logs")
SHARED_SECRETS = ("AIRFLOW__API_AUTH__JWT_SECRET", "AIRFLOW__CORE__FERNET_KEY")
"""The same in all parts of Airflow, on whatever machine they run, or tasks fail in ways that do not say why."""
FINGERPRINTS = "deployment/secrets.json"
MAY_DELETE = ("arn:aws:s3:::cifar/runs/*/checkpoints/*", "arn:aws:s3:::cifar/runs/*/lease.json")
"""What a training tidies up itself. Data sets, results and logs cannot be deleted by whoever trains."""


def main() -> None:
    for step in (migrate_airflow, create_admin, size_pool, create_buckets, record_secrets, create_mlflow_users):
        print(f"init: {(step.__doc__ or '').splitlines()[0]}", flush=True)  # noqa: T201
        step()


def migrate_airflow() -> None:
    """Airflow's tables, and those of its log-in."""
    subprocess.run(["airflow", "db", "migrate"], check=True, stdout=subprocess.DEVNULL)


def create_admin() -> None:
    """The one user of Airflow, with the password of `.env`."""
    from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder
    from airflow.utils.providers_configuration_loader import providers_configuration_loaded

    @providers_configuration_loaded
    def create() -> None:
        with get_application_builder() as builder:
            users, password = builder.sm, os.environ["AIRFLOW_ADMIN_PASSWORD"]
            if (user := users.find_user(ADMIN)) is not None:
                users.reset_password(user.id, password)
            elif not users.add_user(ADMIN, "Admin", "", "admin@localhost", users.find_role("Admin"), password):
                sys.exit("init: Airflow's admin could not be created")

    create()


def size_pool() -> None:
    """The pool `gpu`, with a slot for each GPU worker: trainings then wait as scheduled, not in Redis."""
    from airflow.models.pool import Pool

    slots = int(os.environ["CIFAR_GPU_SLOTS"])
    Pool.create_or_update_pool("gpu", slots, "Trainings that may run at the same time.", include_deferred=False)


def create_buckets() -> None:
    """Buckets, and the rule that whoever trains deletes nothing but checkpoints."""
    s3 = _s3()
    there = {bucket["Name"] for bucket in s3.list_buckets()["Buckets"]}
    for name in BUCKETS:
        if name not in there:
            s3.create_bucket(Bucket=name)
    if not (principal := os.environ.get("S3_TRAINER_PRINCIPAL")):
        return  # an S3 elsewhere: its own admin says who may do what
    trainer = {"AWS": principal}
    for name, kept in (("cifar", {"NotResource": list(MAY_DELETE)}), ("logs", {"Resource": "arn:aws:s3:::logs/*"})):
        statement = {"Effect": "Deny", "Principal": trainer, "Action": ["s3:DeleteObject"], **kept}
        s3.put_bucket_policy(Bucket=name, Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}))


def record_secrets() -> None:
    """Fingerprints of the shared secrets, against which every part checks its own."""
    _s3().put_object(Bucket="cifar", Key=FINGERPRINTS, Body=json.dumps(fingerprints()).encode())


def fingerprints() -> dict[str, str]:
    """Of 256 random bits, so the secret cannot be guessed from it."""
    return {name: hashlib.sha256(os.environ[name].encode()).hexdigest() for name in SHARED_SECRETS}


def create_mlflow_users() -> None:
    """MLflow's users: `trainer` logs and registers and cannot delete, `reader` only reads (the default permission)."""
    from mlflow import MlflowClient
    from mlflow.server.auth.client import AuthServiceClient

    url, client = os.environ["MLFLOW_TRACKING_URI"], MlflowClient()
    _wait_for(f"{url}/health")
    auth = AuthServiceClient(url)
    for user in ("trainer", "reader"):
        password = os.environ[f"MLFLOW_{user.upper()}_PASSWORD"]
        if not _there(lambda user=user: auth.get_user(user)):
            auth.create_user(user, password)
        else:
            auth.update_user_password(user, password)
    role = next((role for role in auth.list_roles("default") if role.name == "trainer"), None)
    if role is None:
        role = auth.create_role("default", "trainer", "Logs runs and registers models; deletes nothing.")
        for kind in ("experiment", "registered_model"):
            auth.add_role_permission(role.id, kind, "*", "EDIT")
        auth.assign_role("trainer", role.id)
    # Whoever creates an experiment or a model may delete it: these two are created by the admin.
    experiment, model = os.environ["CIFAR_EXPERIMENT"], os.environ["CIFAR_REGISTERED_MODEL"]
    if client.get_experiment_by_name(experiment) is None:
        # Without a kind the UI opens on its pages for language models.
        client.create_experiment(experiment, tags={"mlflow.experimentKind": "custom_model_development"})
    if not _there(lambda: client.get_registered_model(model)):
        client.create_registered_model(model)


@retry(retry=retry_if_exception_type(OSError), stop=stop_after_delay(300), wait=wait_fixed(1), reraise=True)
def _wait_for(url: str) -> None:
    """MLflow makes its tables while Airflow makes its own."""
    requests.get(url, timeout=10).raise_for_status()


def _there(get: Callable[[], Any]) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        get()
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise
    return True


def _s3() -> Any:
    import boto3

    return boto3.client("s3")


if __name__ == "__main__":
    main()
