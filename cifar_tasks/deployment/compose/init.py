"""The set-up of the deployment: Airflow's tables, admin and pool, buckets with their policies, MLflow's users.

Runs before each start and changes only what differs; a password that was changed in `.env` is changed here.
"""

import json
import os
import sys
from collections.abc import Callable

from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from cifar_tasks.deployment import airflow_setup, probes
from cifar_tasks.deployment.compose import BUCKETS
from cifar_tasks.deployment.compose.airflow_component import FINGERPRINTS, fingerprints
from cifar_tasks.deployment.probes import ProbeError
from cifar_tasks.storage.s3 import S3Store, canonical_json, s3_client

ADMIN = "admin"
MAY_DELETE = ("arn:aws:s3:::cifar/runs/*/checkpoints/*", "arn:aws:s3:::cifar/runs/*/lease.json")
"""What a training deletes itself. A trainer cannot delete datasets, results and logs."""


def main() -> None:
    steps: dict[str, Callable[[], object]] = {
        "Airflow's tables and the pool gpu": airflow_setup.main,
        "Airflow's admin, with the password of .env": create_admin,
        "buckets, and what a trainer may delete": create_buckets,
        "fingerprints of the secrets that all components share": record_secrets,
        "MLflow's users": create_mlflow_users,
    }
    for title, step in steps.items():
        print(f"init: {title}", flush=True)  # noqa: T201
        step()


def create_admin() -> None:
    from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder
    from airflow.utils.providers_configuration_loader import providers_configuration_loaded

    def create() -> None:
        with get_application_builder() as builder:
            users, password = builder.sm, os.environ["AIRFLOW_ADMIN_PASSWORD"]
            if (user := users.find_user(ADMIN)) is not None:
                users.reset_password(user.id, password)
            elif not users.add_user(ADMIN, "Admin", "", "admin@localhost", users.find_role("Admin"), password):
                sys.exit("init: Airflow's admin could not be created")

    providers_configuration_loaded(create)()


def create_buckets() -> None:
    s3 = s3_client()
    there = {bucket["Name"] for bucket in s3.list_buckets()["Buckets"]}
    for name in BUCKETS:
        if name not in there:
            s3.create_bucket(Bucket=name)
    if not (principal := os.environ.get("S3_TRAINER_PRINCIPAL")):
        return  # an S3 elsewhere: its own admin sets the permissions
    for name, kept in (("cifar", {"NotResource": MAY_DELETE}), ("logs", {"Resource": "arn:aws:s3:::logs/*"})):
        statement = {"Effect": "Deny", "Principal": {"AWS": principal}, "Action": ["s3:DeleteObject"], **kept}
        s3.put_bucket_policy(Bucket=name, Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}))


def record_secrets() -> None:
    S3Store("cifar").put(FINGERPRINTS, canonical_json(fingerprints()))


def create_mlflow_users() -> None:
    """`trainer` logs and registers and cannot delete, `reader` has the default permission, which is to read."""
    from mlflow import MlflowClient
    from mlflow.server.auth.client import AuthServiceClient

    url, login = os.environ["MLFLOW_TRACKING_URI"], (ADMIN, os.environ["MLFLOW_TRACKING_PASSWORD"])
    # MLflow makes its tables while Airflow makes its own.
    ready = retry(
        retry=retry_if_exception_type(ProbeError), stop=stop_after_delay(300), wait=wait_fixed(1), reraise=True
    )
    ready(probes.mlflow)(url, login)
    client, auth = MlflowClient(), AuthServiceClient(url)
    for user in ("trainer", "reader"):
        password = os.environ[f"MLFLOW_{user.upper()}_PASSWORD"]
        if _exists(auth.get_user, user):
            auth.update_user_password(user, password)
        else:
            auth.create_user(user, password)
    if "trainer" not in {role.name for role in auth.list_roles("default")}:
        role = auth.create_role("default", "trainer", "Logs runs and registers models; deletes nothing.")
        for kind in ("experiment", "registered_model"):
            auth.add_role_permission(role.id, kind, "*", "EDIT")
        auth.assign_role("trainer", role.id)
    # Whoever creates an experiment or a model may delete it: these two are created by the admin.
    experiment, model = os.environ["CIFAR_EXPERIMENT"], os.environ["CIFAR_REGISTERED_MODEL"]
    if client.get_experiment_by_name(experiment) is None:
        # Without a kind the UI opens on its pages for language models.
        client.create_experiment(experiment, tags={"mlflow.experimentKind": "custom_model_development"})
    if not _exists(client.get_registered_model, model):
        client.create_registered_model(model)


def _exists(get: Callable[[str], object], name: str) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        get(name)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise
    return True


if __name__ == "__main__":
    main()
