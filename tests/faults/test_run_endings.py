"""However `cifar run` ends, none of its MLflow runs stays running."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from cifar_tasks.cli.local_run import run_workflow
from cifar_tasks.errors import CifarError, WeightsError
from cifar_tasks.settings import Settings
from cifar_tasks.storage.lease_terms import LeaseTerms
from cifar_tasks.storage.s3 import S3Store
from cifar_tasks.tracking import endings, runs
from tests.trainings import child_run, request
from tests.waiting import wait_until

PROGRAM = """
import signal, sys
from cifar_tasks.cli.local_run import run_workflow
from tests.trainings import request
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts jobs in the background that ignore it
run_workflow(sys.argv[1], request(sys.argv[2], registered_model="endings", overrides={"epochs": 500}))
"""


def statuses(client: MlflowClient, name: str, model: str = "cnn") -> list[str]:
    """Of the parent and of its training."""
    found = [child_run(client, f"cli/{name}", kind) for kind in ("all", model)]
    return [run.info.status for made in found for run in made]


def start(client: MlflowClient, name: str, pictures: Path) -> "subprocess.Popen[bytes]":
    """A long training, once it has logged an epoch."""
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, name, str(pictures)])
    wait_until(lambda: any(run.data.metrics for run in child_run(client, f"cli/{name}")), 120)
    assert statuses(client, name) == ["RUNNING", "RUNNING"]
    return process


def lease_of(name: str) -> bool:
    return S3Store(Settings().bucket).exists(endings.workflow_lease(f"cli/{name}"))


def test_a_run_that_fails_before_its_training_ends_as_failed(client, tmp_path):
    (tmp_path / "train" / "cat").mkdir(parents=True)
    with pytest.raises(CifarError):
        run_workflow("ends-in-bad-data", request(tmp_path))
    assert statuses(client, "ends-in-bad-data") == ["FAILED"]
    assert not lease_of("ends-in-bad-data")


def test_a_run_that_lacks_required_weights_ends_as_failed_before_its_training_is_opened(client, pictures, monkeypatch):
    nowhere = {"resnet50": {"source": "/nowhere/weights.pth", "sha256": "0" * 64}}
    monkeypatch.setenv("CIFAR_PRETRAINED_WEIGHTS", json.dumps(nowhere))
    with pytest.raises(WeightsError):
        run_workflow(
            "ends-without-weights", request(pictures, models=["resnet50"], overrides={"pretrained": "required"})
        )
    assert statuses(client, "ends-without-weights", "resnet50") == ["FAILED"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_told_to_stop_ends_as_killed_and_gives_its_lease_back(client, pictures, number):
    name = f"ends-by-{number.name}"
    process = start(client, name, pictures)
    process.send_signal(number)
    assert process.wait(30) != 0
    assert statuses(client, name) == ["KILLED", "KILLED"]
    assert not lease_of(name)


def test_a_run_that_was_killed_is_found_by_the_next_run(client, pictures, monkeypatch):
    process = start(client, "ends-by-SIGKILL", pictures)
    process.kill()
    process.wait(10)
    experiment, store = runs.experiment_id(client, Settings().experiment), S3Store(Settings().bucket)
    endings.end_dead_runs(client, experiment, store, "cli/next")
    assert statuses(client, "ends-by-SIGKILL") == ["RUNNING", "RUNNING"]  # its lease has not expired yet
    monkeypatch.setattr(endings, "TERMS", LeaseTerms(ttl=1))
    time.sleep(2.5)
    endings.end_dead_runs(client, experiment, store, "cli/next")
    assert statuses(client, "ends-by-SIGKILL") == ["KILLED", "KILLED"]
