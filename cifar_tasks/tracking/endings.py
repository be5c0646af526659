"""Every MLflow run of a workflow run ends, also when the process that worked on it was killed."""

import logging
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING

from cifar_tasks.errors import IntegrityError
from cifar_tasks.settings import Settings
from cifar_tasks.storage.lease_terms import TERMS
from cifar_tasks.storage.s3 import S3Store, sha256_hex
from cifar_tasks.tracking.runs import MODEL, SEARCHED_IN, STORE, WORKFLOW

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

CLI = "cli/"
"""Ids of workflow runs of `cifar run` begin with this; those of Airflow with the name of the DAG."""

STORE_ID = "deployment/id"

_log = logging.getLogger(__name__)


def workflow_lease(workflow: str) -> str:
    """Key of the lease that `cifar run` holds while it works on the workflow run of this id."""
    return f"runs/{sha256_hex(workflow.encode())[:16]}/lease.json"


def store_id(store: S3Store) -> str:
    """Of this object storage, random: two machines may have a bucket of the same name at the same address."""
    try:
        return store.get(STORE_ID).decode()
    except KeyError:
        with suppress(IntegrityError):  # another process was first
            store.put_if(STORE_ID, uuid.uuid4().hex.encode(), None)
        return store.get(STORE_ID).decode()


def end_runs(client: "MlflowClient", experiment: str, workflow: str, status: str) -> None:
    """End what is still running of a workflow run: its parent run, trainings, studies and trials."""
    for run in _running(client, experiment):
        if workflow in (run.data.tags.get(WORKFLOW), run.data.tags.get(SEARCHED_IN)):
            client.set_terminated(run.info.run_id, status)
            _log.info("MLflow run %s of %s: %s", run.info.run_name, workflow, status)


def end_dead_runs(client: "MlflowClient", experiment: str, store: S3Store, workflow: str) -> None:
    """End the runs of workflow runs that nothing works on any more, found when the run `workflow` begins.

    A DAG has one active run, so that any other run of the same DAG in the same Airflow has ended: it was marked as
    failed or success in the UI. A `cifar run` in this bucket is dead when its lease has expired.
    """
    kind, _, _ = workflow.partition("/")
    airflow = Settings().airflow_url
    for run in _running(client, experiment):
        other, url = run.data.tags.get(WORKFLOW, ""), run.data.tags.get("airflow.dag_run_url", "")
        if run.data.tags.get(MODEL) != "all" or other == workflow:
            continue
        if other.startswith(CLI):
            dead = run.data.tags.get(STORE) == store_id(store) and _has_expired(store, workflow_lease(other))
        else:
            dead = bool(airflow) and other.startswith(f"{kind}/") and url.startswith(f"{airflow}/")
        if dead:
            _log.warning("%s was interrupted: its MLflow runs are marked as KILLED", other)
            end_runs(client, experiment, other, "KILLED")


def _has_expired(store: S3Store, key: str) -> bool:
    try:
        return store.snapshot(key).age > TERMS.ttl
    except KeyError:
        return True


def _running(client: "MlflowClient", experiment: str) -> "list[Run]":
    return list(client.search_runs([experiment], "attributes.status = 'RUNNING'"))
