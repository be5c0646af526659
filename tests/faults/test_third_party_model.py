"""A model from an installed package: found by its entry point, and used everywhere without a change in this tree."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from cifar_tasks.settings import PROJECT


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder in which pip has installed the package; to be put into PYTHONPATH."""
    source, target = tmp_path_factory.mktemp("source") / "tiny", tmp_path_factory.mktemp("site")
    subprocess.run(["cp", "-r", str(Path(__file__).parents[1] / "tiny_package"), str(source)], check=True)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target"]
    subprocess.run([*pip, str(target), str(source)], check=True, timeout=120)
    return os.pathsep.join([str(PROJECT), str(target)])


def cifar(installed: str, *words: str) -> CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": installed, "COLUMNS": "200"}
    command = [sys.executable, "-m", "cifar_tasks.cli", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)


def test_the_command_line_offers_it(installed):
    shown = cifar(installed, "run", "--help").stdout
    assert "tiny: Three layers from another package." in " ".join(shown.replace("│", " ").split())


def test_the_trigger_form_offers_it_but_a_default_run_does_not_train_it(installed):
    code = (
        f"import json, sys; sys.path.insert(0, {str(PROJECT / 'dags')!r}); import airflow.sdk, cifar10_training; "
        "models = cifar10_training.cifar10_training().params.get_param('models'); "
        "print(json.dumps([models.schema['examples'], models.schema['items']['pattern'], models.value]))"
    )
    environment = {**os.environ, "PYTHONPATH": installed}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    offered, accepted, chosen = json.loads(done.stdout.splitlines()[-1])
    assert "tiny" in offered
    assert re.fullmatch(accepted, "tiny")
    assert chosen == [name for name in offered if name != "tiny"]
