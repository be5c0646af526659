"""The set-up of the deployment: Airflow's tables, users and pool, buckets with their policies, MLflow's users.

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
from cifar_tasks.settings import Settings
from cifar_tasks.storage.s3 import S3Store, canonical_json, s3_client

ADMIN, WORKER = "admin", "worker"
NOTES = (("can_read", "DAGs"), ("can_edit", "DAGs"), ("can_read", "DAG Runs"), ("can_edit", "DAG Runs"))
"""Airflow's permissions to write the note of a DAG run: none to start or delete one, or to see connections."""
MAY_DELETE = ("arn:aws:s3:::cifar/runs/*/checkpoints/*", "arn:aws:s3:::cifar/runs/*/lease.json")
"""What a training deletes itself. Nobody but the admin deletes datasets, results and logs."""
PROMOTIONS = "arn:aws:s3:::cifar/promotions/*"


def main() -> None:
    steps: dict[str, Callable[[], object]] = {
        "Airflow's tables and the pool gpu": airflow_setup.main,
        "Airflow's users, with the passwords of .env": create_airflow_users,
        "buckets, and who may write and delete": create_buckets,
        "fingerprints of the secrets that all components share": record_secrets,
        "MLflow's users": create_mlflow_users,
    }
    for title, step in steps.items():
        print(f"init: {title}", flush=True)  # noqa: T201
        step()


def create_airflow_users() -> None:
    """`admin`, and `worker`, as whom tasks write notes."""
    from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder
    from airflow.utils.providers_configuration_loader import providers_configuration_loaded

    def create() -> None:
        with get_application_builder() as builder:
            users = builder.sm
            users.bulk_sync_roles([{"role": WORKER, "perms": NOTES}])
            for name, role in ((ADMIN, "Admin"), (WORKER, WORKER)):
                password = os.environ[f"AIRFLOW_{name.upper()}_PASSWORD"]
                if (user := users.find_user(name)) is not None:
                    users.reset_password(user.id, password)
                elif not users.add_user(name, name, "", f"{name}@localhost", users.find_role(role), password):
                    sys.exit(f"init: Airflow's user {name} could not be created")

    providers_configuration_loaded(create)()


def create_buckets() -> None:
    s3 = s3_client()
    there = {bucket["Name"] for bucket in s3.list_buckets()["Buckets"]}
    for name in BUCKETS:
        if name not in there:
            s3.create_bucket(Bucket=name)
    trainer, promoter = os.environ.get("S3_TRAINER_PRINCIPAL"), os.environ.get("S3_PROMOTER_PRINCIPAL")
    if not trainer:
        return  # an S3 elsewhere: its own admin sets the permissions
    workers = [trainer, promoter] if promoter else [trainer]
    statements = {
        "cifar": [_deny("s3:DeleteObject", workers, NotResource=MAY_DELETE)],
        "logs": [_deny("s3:DeleteObject", workers, Resource="arn:aws:s3:::logs/*")],
    }
    if promoter and Settings().promotion_queue:
        statements["cifar"].append(_deny("s3:PutObject", [trainer], Resource=PROMOTIONS))
    for name, denied in statements.items():
        s3.put_bucket_policy(Bucket=name, Policy=json.dumps({"Version": "2012-10-17", "Statement": denied}))


def _deny(action: str, principals: list[str], **objects: object) -> dict[str, object]:
    return {"Effect": "Deny", "Principal": {"AWS": principals}, "Action": [action], **objects}


def record_secrets() -> None:
    S3Store("cifar").put(FINGERPRINTS, canonical_json(fingerprints()))


def create_mlflow_users() -> None:
    """`trainer` and `promoter` log, register and cannot delete; `reader` has the default permission, which is to read.

    That only `promoter` moves aliases is a matter of the server's log-in (`mlflow_login.py`).
    """
    from mlflow import MlflowClient
    from mlflow.server.auth.client import AuthServiceClient

    url, login = os.environ["MLFLOW_TRACKING_URI"], (ADMIN, os.environ["MLFLOW_TRACKING_PASSWORD"])
    # MLflow makes its tables while Airflow makes its own.
    ready = retry(
        retry=retry_if_exception_type(ProbeError), stop=stop_after_delay(300), wait=wait_fixed(1), reraise=True
    )
    ready(probes.mlflow)(url, login)
    client, auth = MlflowClient(), AuthServiceClient(url)
    passwords = {user: os.environ.get(f"MLFLOW_{user.upper()}_PASSWORD") for user in ("trainer", "promoter", "reader")}
    for user, password in passwords.items():
        if password is None:
            continue  # of `promoter`, where trainings have its rights
        if _exists(auth.get_user, user):
            auth.update_user_password(user, password)
        else:
            auth.create_user(user, password)
    roles = [role for role in auth.list_roles("default") if role.name == "trainer"]
    if not roles:
        role = auth.create_role("default", "trainer", "Logs runs and registers models; deletes nothing.")
        roles = [role]
        for kind in ("experiment", "registered_model"):
            auth.add_role_permission(role.id, kind, "*", "EDIT")
    for user in ("trainer", "promoter") if passwords["promoter"] else ("trainer",):
        if "trainer" not in {role.name for role in auth.list_user_roles(user)}:
            auth.assign_role(user, roles[0].id)
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
