"""Services die, restart and stop while a model is trained; the run ends as without the fault."""

import json
import os
import time
from collections.abc import Callable

import pytest
from mlflow import MlflowClient

from cifar_tasks.cli.dag_run import DagRun
from tests.compose.conftest import EXPERIMENT, finish, start
from tests.compose.deployment import Deployment

if not os.environ.get("COMPOSE"):
    pytest.skip("needs a Docker engine and 40 minutes: `make test-compose`", allow_module_level=True)

EPOCHS = 6
"""About a minute on one core: long enough to break something in between."""
TRAINING = {"models": ["cnn"], "epochs": EPOCHS}
Tracking = Callable[[str], MlflowClient]


@pytest.fixture(autouse=True)
def healthy(deployment: Deployment) -> None:
    """Each fault starts from a healthy deployment."""
    deployment.compose("up", "-d")
    deployment.wait_until_healthy(240)


def test_a_training_whose_worker_is_killed_resumes_on_another_worker(deployment: Deployment, tracking: Tracking):
    run = start(deployment, **TRAINING)
    wait_for_epoch(tracking("reader"), run, 2)
    (killed,) = [each for each in deployment.containers("gpu-worker") if _trains(deployment, each)]
    deployment.docker("kill", "--signal", "KILL", killed)

    assert finish(deployment, run, 900) == "success"

    assert_trained_once(tracking("reader"), run)
    assert tries(deployment, run) == 2
    lost = deployment.airflow(f"dagRuns/{run.run_id}/taskInstances/model.train/logs/1?map_index=0&full_content=true")
    assert "epoch 1" in json.dumps(lost)


@pytest.mark.parametrize("service", ["redis", "postgres", "mlflow", "storage", "scheduler"])
def test_a_training_survives_the_restart_of(deployment: Deployment, tracking: Tracking, service: str):
    run = start(deployment, **TRAINING)
    wait_for_epoch(tracking("reader"), run, 1)
    deployment.compose("restart", service)

    assert finish(deployment, run, 900) == "success"

    assert_trained_once(tracking("reader"), run)


def test_a_training_survives_half_a_minute_without_a_network(deployment: Deployment, tracking: Tracking):
    run = start(deployment, **TRAINING)
    wait_for_epoch(tracking("reader"), run, 1)
    (cut,) = [each for each in deployment.containers("gpu-worker") if _trains(deployment, each)]
    network = f"{deployment.environment['COMPOSE_PROJECT_NAME']}_inside"
    deployment.docker("network", "disconnect", network, cut)
    time.sleep(30)  # names of services are unknown meanwhile
    deployment.docker("network", "connect", "--alias", "gpu-worker", network, cut)

    assert finish(deployment, run, 900) == "success"

    assert_trained_once(tracking("reader"), run)


def test_a_stopped_deployment_resumes_its_training_at_the_next_start(deployment: Deployment, tracking: Tracking):
    run = start(deployment, **TRAINING)
    wait_for_epoch(tracking("reader"), run, 2)
    began = time.monotonic()
    deployment.compose("stop", "gpu-worker")
    assert time.monotonic() - began < 60
    deployment.compose("stop")
    deployment.compose("up", "-d")
    deployment.wait_until_healthy(240)
    listed = deployment.python(
        "worker",
        "from cifar_tasks.storage.s3 import S3Store\nprint(*S3Store('cifar').keys('runs/'))",
    )
    assert "/checkpoints/" in listed

    assert finish(deployment, run, 900) == "success"

    assert_trained_once(tracking("reader"), run)


def test_doctor_names_a_secret_that_differs(deployment: Deployment):
    well = deployment.compose("run", "--rm", "-T", "cifar", "doctor", check=False)
    assert well.returncode == 0, well.stdout + well.stderr
    wrong = deployment.compose(
        "run", "--rm", "-T", "-e", "AIRFLOW__API_AUTH__JWT_SECRET=somebody-elses", "cifar", "doctor", check=False
    )
    assert wrong.returncode == 1
    assert "AIRFLOW__API_AUTH__JWT_SECRET" in wrong.stdout


def training_of(client: MlflowClient, run: DagRun) -> "list[object]":
    experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
    wanted = f"tags.`cifar.workflow` = 'cifar10_training/{run.run_id}' AND tags.`cifar.model` = 'cnn'"
    return list(client.search_runs([experiment], wanted))


def wait_for_epoch(client: MlflowClient, run: DagRun, epoch: int, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for found in training_of(client, run):
            if len(client.get_metric_history(found.info.run_id, "validation_accuracy")) >= epoch:
                return
        time.sleep(1)
    pytest.fail(f"epoch {epoch} was not reached within {seconds:.0f} s")


def assert_trained_once(client: MlflowClient, run: DagRun) -> None:
    """One MLflow run, each epoch in it once, and a registered version of it."""
    (trained,) = training_of(client, run)
    assert trained.info.status == "FINISHED"
    steps = [each.step for each in client.get_metric_history(trained.info.run_id, "validation_accuracy")]
    epochs = list(range(1, max(steps) + 1))
    # Where the last epoch is not the best one, its step has the best one's value too.
    assert sorted(steps) in (epochs, [*epochs, epochs[-1]])
    assert trained.data.metrics["validation_accuracy"] > 0.9
    versions = client.search_model_versions(f"run_id = '{trained.info.run_id}'")
    assert len(versions) == 1


def tries(deployment: Deployment, run: DagRun) -> int:
    """Of the training."""
    task = deployment.airflow(f"dagRuns/{run.run_id}/taskInstances/model.train/0")
    return int(task["try_number"])


def _trains(deployment: Deployment, container: str) -> bool:
    return "cifar_tasks.steps.process" in deployment.docker("top", container, "-eo", "pid,args")
