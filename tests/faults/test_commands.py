"""`cifar demo`, `run` and `predict` as a shell starts them, on a stack that runs."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import COLOURS, RunningStack

ONE_EPOCH = ("--models", "cnn", "--set", "epochs=1", "--registered-model", "commands")


@pytest.fixture
def cifar(stack: RunningStack, tmp_path: Path):
    """Calls the command in an empty folder, with nothing but the home of the stack in its environment."""
    kept = ("PATH", "HOME", "PYTHONPATH", "LANG")
    environment = {name: os.environ[name] for name in kept if name in os.environ} | {"CIFAR_HOME": str(stack.home)}

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "cifar_tasks.cli", *words]
        return subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=400, check=False
        )

    return call


def test_demo_trains_in_airflow_and_predict_uses_its_champion_which_run_then_challenges(
    cifar, stack: RunningStack, pictures: Path, tmp_path: Path
) -> None:
    demo = cifar("demo", "--source", str(pictures), *ONE_EPOCH)
    assert demo.returncode == 0, demo.stdout + demo.stderr
    row = next(line.split() for line in demo.stdout.splitlines() if "2,388" in line)
    assert (row[0], row[2], row[5], row[6]) == ("cnn", "1", "1", "champion")
    assert f"Airflow run  {stack.airflow_url}/dags/" in demo.stdout
    assert f"Report       {stack.mlflow_url}/#/" in demo.stdout

    for name, colour in COLOURS.items():
        Image.new("RGB", (50, 40), colour).save(tmp_path / f"{name}.png")
    words = ("predict", *(f"{name}.png" for name in COLOURS), "--registered-model", "commands")
    shown = cifar(*words)
    assert shown.returncode == 0, shown.stderr
    assert "commands, version 1" in shown.stdout
    rows = list(csv.DictReader(cifar(*words, "--csv").stdout.splitlines()))
    assert [entry["picture"] for entry in rows] == [f"{name}.png" for name in COLOURS]
    assert {entry["class"] for entry in rows} <= set(COLOURS)
    missing = cifar(*words, "gone.png", "--json")
    assert (missing.returncode, json.loads(missing.stdout)["version"]) == (1, 1)
    assert "error: there is no picture at gone.png" in missing.stderr

    run = cifar("run", "--source", str(pictures), "--name", "by-hand", "--force", *ONE_EPOCH)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "Run by-hand" in run.stdout
    (row,) = [line.split() for line in run.stdout.splitlines() if "2,388" in line and line.split()[0] == "cnn"]
    assert row[5] == "2"
    assert "Airflow run" not in run.stdout

    for words in (("run",), ("demo",)):
        again = cifar(*words, "--source", str(pictures), *ONE_EPOCH)
        assert again.returncode == 0, again.stdout + again.stderr
        assert "nothing to train: version 2 (cnn) of commands: same dataset version" in again.stdout


def test_a_command_that_fails_prints_one_line_and_no_traceback(cifar) -> None:
    for words, said in (
        (("predict", "x.png", "--registered-model", "nobody"), "there is no registered model nobody in MLflow"),
        (("run", "--source", "/no/such/folder"), "/no/such/folder"),
        (("demo", "--source", "/no/such/folder"), "/no/such/folder"),
    ):
        done = cifar(*words)
        assert done.returncode == 1
        assert done.stderr.startswith("error: ")
        assert said in done.stderr
        assert "Traceback" not in done.stdout + done.stderr
