"""A model from an installed package goes the whole way, and its training resumes, as those of the product do."""

import os
import subprocess
import sys
import time
from pathlib import Path

from cifar_tasks.tracking import model_registry, runs
from tests.conftest import RunningStack
from tests.faults.test_third_party_model import cifar, installed  # noqa: F401 – a fixture
from tests.trainings import child_run


def test_it_is_tuned_trained_evaluated_registered_and_promoted(
    installed,  # noqa: F811
    tracked: RunningStack,
    pictures: Path,
):
    words = ["--source", str(pictures), "--models", "tiny", "--registered-model", "tiny-classifier", "--name", "tiny"]
    done = cifar(installed, "run", *words, "--tune", "tiny", "--trials", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    client = runs.mlflow_client()
    champion = model_registry.version_with_alias(client, "tiny-classifier", model_registry.CHAMPION)
    assert champion is not None
    assert champion.tags["cifar.model"] == "tiny"
    assert float(champion.tags["cifar.test_accuracy"]) > 0.8
    assert champion.tags["cifar.params_source"].startswith("study tiny-")


def test_its_training_resumes_after_a_kill(
    installed,  # noqa: F811
    tracked: RunningStack,
    pictures: Path,
    tmp_path: Path,
):
    words = ["run", "--source", str(pictures), "--models", "tiny", "--registered-model", "tiny-killed"]
    words += ["--name", "tiny-killed", "--set", "epochs=400"]
    log = tmp_path / "log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "cifar_tasks.cli", *words],
            env={**os.environ, "PYTHONPATH": installed, "PYTHONUNBUFFERED": "1"},
            stdout=file,
        )
    client = runs.mlflow_client()
    deadline = time.monotonic() + 120
    while "epoch 3/400" not in log.read_text():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
    process.kill()
    process.wait()
    done = cifar(installed, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "resuming after epoch" in done.stdout
    (run,) = child_run(client, "cli/tiny-killed", "tiny")
    steps = [metric.step for metric in client.get_metric_history(run.info.run_id, "validation_loss")]
    *epochs, best = steps  # the best epoch is logged once more at the end, unless it is the last one
    assert epochs == list(range(1, len(epochs) + 1))
    assert best in (len(epochs), len(epochs) + 1)
