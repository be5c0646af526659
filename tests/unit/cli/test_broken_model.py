"""An installed package of a model that cannot be imported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cifar_tasks.settings import PROJECT


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A folder of packages with one whose entry point leads nowhere."""
    about = tmp_path / "site" / "broken_model-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-model\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[cifar_pipeline.models]\nbroken = no_such_module:SPEC\n")
    return about.parent


@pytest.mark.parametrize(
    ("words", "said", "code"),
    [
        (["status"], "no embedded stack in ", 1),
        (["run", "--source", "digits"], "no_such_module", 1),
        (["down", "--help"], "Stop", 0),
        (["data", "list"], "there is no MLflow server", 1),
    ],
)
def test_a_broken_model_stops_what_needs_models_and_nothing_else(
    tmp_path: Path, broken: Path, words: list[str], said: str, code: int
) -> None:
    environment = os.environ | {"PYTHONPATH": f"{broken}:{PROJECT}", "CIFAR_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-m", "cifar_tasks.cli", *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in done.stderr
    assert said in done.stdout + done.stderr
    assert done.returncode == code
