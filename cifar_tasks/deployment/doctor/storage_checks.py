"""Do S3 and MLflow keep what they are given, whom do they refuse, and are their clocks right?"""

import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mlflow.artifacts import load_text

from cifar_tasks.deployment import probes
from cifar_tasks.deployment.doctor.check_runner import Deployment, Finding, judge
from cifar_tasks.errors import IntegrityError, StorageRefused
from cifar_tasks.storage.s3 import ObjectRef, S3Store, s3_client
from cifar_tasks.tracking import model_registry, runs
from cifar_tasks.tracking.saved_model import is_stored


def write_and_read(deployment: Deployment) -> str:
    """If S3 refuses, let init set the bucket's rules: docker compose up -d init. If bytes differ, check its disks."""
    with _new_object(deployment) as (store, ref):
        store.get(ref.key, ref.sha256)
    return "an object was written, read back and deleted"


def conditional_write(deployment: Deployment) -> str:
    """Use an S3 server with conditional writes (SeaweedFS 4.48, AWS, MinIO, Ceph)."""
    with _new_object(deployment) as (store, ref):
        try:
            store.put_if(ref.key, b"second", None)
        except IntegrityError:
            return "an existing object is not overwritten (If-None-Match: *)"
    raise Finding("failure", "If-None-Match is ignored: two trainings could overwrite each other")


@contextmanager
def _new_object(deployment: Deployment) -> Iterator[tuple[S3Store, ObjectRef]]:
    """An object where trainers may delete; deleted afterwards."""
    store = deployment.store()
    ref = store.put(f"runs/doctor/checkpoints/{secrets.token_hex(8)}", secrets.token_bytes(1024))
    try:
        yield store, ref
    finally:
        store.delete(ref.key)


def delete_permission(deployment: Deployment) -> str:
    """Give tasks a key that may not delete; for the keys of this deployment init sets it: docker compose up -d init"""
    judge("the embedded stack has one S3 identity, which may do everything", skipped=deployment.embedded)
    user = os.environ.get("AWS_ACCESS_KEY_ID", "")
    try:
        deployment.store().delete(f"datasets/doctor-{secrets.token_hex(8)}")  # does not exist
    except StorageRefused:
        return f"{user} may not delete datasets"
    # With a key of another S3 it is the owner's choice.
    ours = user in ("trainer", "promoter")
    return judge(f"{user}, and with it every task that has its key, may delete datasets", warning=True, failure=ours)


def anonymous_access(deployment: Deployment) -> str:
    """Remove the public access of the bucket, or start S3 with keys as docker-compose.yaml does."""
    return refuse_anonymous(deployment, s3_url(deployment))


def mlflow_login(deployment: Deployment) -> str:
    """Start MLflow with its log-in (--app-name basic-auth)."""
    reason = "MLflow has no log-in" + ": it listens on this machine only" * deployment.embedded
    judge(reason, skipped=not os.environ.get("MLFLOW_TRACKING_USERNAME"))
    return refuse_anonymous(deployment, mlflow_url(deployment))


def s3_url(deployment: Deployment) -> str:
    return s3_client(unsigned=True).generate_presigned_url("list_objects_v2", {"Bucket": deployment.settings.bucket})


def mlflow_url(_deployment: Deployment) -> str:
    return f"{os.environ['MLFLOW_TRACKING_URI'].rstrip('/')}/api/2.0/mlflow/experiments/search?max_results=1"


def refuse_anonymous(deployment: Deployment, url: str) -> str:
    status = probes.get(url, timeout=deployment.timeout).status_code
    return judge(f"a request without log-in gets {status}", failure=status not in (401, 403))


def clock(url: Callable[[Deployment], str]) -> Callable[[Deployment], str]:
    """The check that compares this machine's clock with that of the server at `url`."""

    def compare(deployment: Deployment) -> str:
        """Set the clocks of both machines by NTP (timedatectl set-ntp true); at 15 minutes S3 refuses all requests."""
        ahead = probes.clock_difference(url(deployment), deployment.now, deployment.timeout)
        off, message = abs(ahead), f"this machine is {abs(ahead):.0f} s {'ahead' if ahead > 0 else 'behind'}"
        return judge(message, warning=off > deployment.clock_warning, failure=off > deployment.clock_failure)

    return compare


def artifacts(deployment: Deployment) -> str:
    # Through the server to S3 and back; always the same run, for trainers cannot delete runs.
    client, written = runs.mlflow_client(), time.time_ns()
    run = runs.open_run(client, runs.experiment_id(client, "doctor"), {"cifar.doctor": "round trip"}, "doctor")
    with runs.closing(client, run.info.run_id):
        client.log_text(run.info.run_id, str(written), "doctor.txt")
        read = int(load_text(f"{run.info.artifact_uri}/doctor.txt"))
    # Another doctor at the same time may have logged a newer one.
    return judge(f"logged artifact {written}, read artifact {read}", failure=read < written)


def experiment(deployment: Deployment) -> str:
    """The next run restores it. To use another one set CIFAR_EXPERIMENT."""
    name = deployment.settings.experiment
    with runs.tracking_errors():
        found = runs.mlflow_client().get_experiment_by_name(name)
    if found is None:
        raise Finding("skipped", f"{name} does not exist yet: the first run makes it")
    deleted = found.lifecycle_stage == "deleted"
    return judge(f"{name} was deleted in MLflow" if deleted else f"{name} is there", warning=deleted)


def champion(deployment: Deployment) -> str:
    """In MLflow set the alias champion to a version of this pipeline that is whole, or train a new one."""
    client, name = runs.mlflow_client(), deployment.settings.registered_model
    with runs.tracking_errors():
        version = model_registry.version_with_alias(client, name, model_registry.CHAMPION)
        if version is None:
            raise Finding("skipped", f"{name} has no champion yet")
        whole = is_stored(client, model_registry.saved_model_of(version))
    where = f"version {version.version} of {name}"
    return judge(f"{where} is stored" if whole else f"the model of {where} was deleted from storage", failure=not whole)
