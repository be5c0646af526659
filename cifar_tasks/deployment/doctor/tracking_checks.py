"""Does MLflow keep runs and artifacts, and from whom?"""

import os
import tempfile
import time
from pathlib import Path

import requests

from cifar_tasks.deployment.doctor.deployment import TIMEOUT, Deployment
from cifar_tasks.deployment.doctor.finding import CannotTell, Finding, failure, ok, skipped
from cifar_tasks.deployment.doctor.storage_checks import clock_difference, judge_clock
from cifar_tasks.tracking import runs

EXPERIMENT, FILE = "doctor", "doctor.txt"
NOTE = "Written and read back by `cifar doctor`, always the same run. It may be deleted."


def artifacts(deployment: Deployment) -> Finding:
    """An artifact through the server to S3 and back. Trainers cannot delete runs: one run is used again and again."""
    from mlflow.exceptions import MlflowException

    try:
        written, read = _round_trip()
    except MlflowException as error:
        first = str(error).strip().splitlines()[0]
        return failure(f"could not be logged or read: {first}", deployment.start("MLflow", "S3"))
    if read < written:
        return failure("what was read is not what was logged", deployment.start("MLflow", "S3"))
    return ok(f"one logged to the run {EXPERIMENT} and read back")


def _round_trip() -> tuple[int, int]:
    """The number that was logged, and the one read: greater if another doctor is at it."""
    client = runs.mlflow_client()
    experiment = runs.experiment_id(client, EXPERIMENT)
    if client.get_experiment(experiment).lifecycle_stage == "deleted":
        client.restore_experiment(experiment)
    run = runs.open_run(client, experiment, {"cifar.doctor": "round trip"}, EXPERIMENT).info.run_id
    written = time.time_ns()
    with runs.closing(client, run), tempfile.TemporaryDirectory() as folder:
        runs.log_tags(client, run, {"mlflow.note.content": NOTE})
        client.log_text(run, str(written), FILE)
        return written, int(Path(client.download_artifacts(run, FILE, folder)).read_text())


def log_in(deployment: Deployment) -> Finding:
    if not os.environ.get("MLFLOW_TRACKING_USERNAME"):
        return skipped("none: MLflow listens on this machine only" if deployment.embedded else "none is set")
    status = _stranger().status_code
    if status in (401, 403):
        return ok("who does not log in is refused")
    return failure(
        f"who does not log in is answered ({status})", "Start MLflow with its log-in (--app-name basic-auth)"
    )


def clock(deployment: Deployment) -> Finding:
    return judge_clock(clock_difference(deployment.now, lambda: str(_stranger().headers["date"])), deployment.limits)


def _stranger() -> requests.Response:
    """The answer to a request without log-in."""
    url = f"{os.environ['MLFLOW_TRACKING_URI'].rstrip('/')}/api/2.0/mlflow/experiments/search"
    try:
        return requests.get(url, params={"max_results": 1}, timeout=TIMEOUT)
    except requests.RequestException as error:
        raise CannotTell("MLflow does not answer") from error
