"""Disk, memory, GPUs as torch tells of them, and the variables of the user's shell."""

import re
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from cifar_tasks.deployment.doctor.check_runner import Deployment, Finding
from cifar_tasks.deployment.stack.supervisord import MARKER
from cifar_tasks.settings import PROJECT, Settings
from tests.unit.deployment.doctor.deployments import COMPOSE, EMBEDDED, find


def test_little_space_is_a_warning_and_less_a_failure(tmp_path: Path) -> None:
    own = Deployment(Settings(home=tmp_path / "not" / "there"), embedded=True, disk_warning=0, disk_failure=0)
    assert find("disk", own).status == "ok"
    assert find("disk", replace(own, disk_warning=1e18)).status == "warning"
    full = find("disk", replace(own, disk_warning=1e18, disk_failure=1e18))
    assert full.status == "failure"
    assert str(own.settings.home) in full.message
    assert "CIFAR_HOME" in full.remedy


def test_the_default_limits() -> None:
    assert (COMPOSE.disk_warning, COMPOSE.disk_failure) == (10e9, 2e9)
    assert (COMPOSE.memory_warning, COMPOSE.shared_memory_warning) == (4e9, 1e9)
    assert (COMPOSE.clock_warning, COMPOSE.clock_failure, COMPOSE.oldest_postgresql) == (30, 300, 13)


@pytest.mark.parametrize("name", ["memory", "shared memory"])
def test_too_little_memory_is_a_warning(name: str) -> None:
    limits = {"memory": "memory_warning", "shared memory": "shared_memory_warning"}
    assert find(name, replace(EMBEDDED, **{limits[name]: 0})).status == "ok"  # type: ignore[arg-type]
    little = find(name, replace(EMBEDDED, **{limits[name]: 1e18}))  # type: ignore[arg-type]
    assert little.status == "warning"
    assert "GB" in little.message


def test_shared_memory_is_of_interest_where_trainings_run() -> None:
    assert find("shared memory", COMPOSE).status == "skipped"


TORCH = """
class version:
    cuda = "13.0"
class cuda:
    is_available = staticmethod(lambda: {count} > 0)
    device_count = staticmethod(lambda: {count})
    class get_device_properties:
        name, total_memory = "NVIDIA H100", 80 * 2**30
        def __init__(self, number): pass
__version__ = "2.14.1"
print("a warning")
"""
"""What the doctor asks of torch, as torch answers on a machine with GPUs."""


def torch_is(text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Finding:
    """The check of the GPU, where `import torch` in a new process runs `text`."""
    (folder / "torch.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return find("GPU", replace(COMPOSE, torch_timeout=3))


def test_gpus_are_named_with_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = torch_is(TORCH.format(count=2), tmp_path, monkeypatch)
    assert (result.status, result.message) == (
        "ok",
        "NVIDIA H100 (80 GiB), NVIDIA H100 (80 GiB) (torch 2.14.1, CUDA 13.0)",
    )


def test_a_driver_without_a_gpu_in_torch_is_a_warning_and_no_gpu_at_all_is_ok(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert torch_is(TORCH.format(count=0), tmp_path, monkeypatch).status == "ok"
    (tmp_path / "nvidia-smi").touch(mode=0o755)
    blind = torch_is(TORCH.format(count=0), tmp_path, monkeypatch)
    assert blind.status == "warning"
    assert "CUDA 13.0" in blind.message
    assert "CUDA_VISIBLE_DEVICES" in blind.remedy


def test_a_torch_that_hangs_is_a_warning_and_a_broken_one_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = torch_is("raise ImportError('libcudart.so.13: not found')", tmp_path, monkeypatch)
    assert (broken.status, broken.message) == (
        "failure",
        "torch cannot be loaded: ImportError: libcudart.so.13: not found",
    )
    began = time.monotonic()
    hanging = torch_is("import time; time.sleep(60)", tmp_path, monkeypatch)
    assert time.monotonic() - began < 30
    assert (hanging.status, hanging.message) == ("warning", "torch does not answer within 3 s")
    assert "nvidia-smi" in hanging.remedy


def test_without_torch_there_is_no_gpu_to_look_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert find("GPU", COMPOSE).status == "skipped"


def test_variables_that_lead_elsewhere_or_that_nothing_reads_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    shell = {"MLFLOW_TRACKING_URI": "http://me:secret@other:5000", "CIFAR_SHEDULE": "@daily", "PYTHONPATH": "/opt/ros"}
    found = find("variables", replace(EMBEDDED, variables=shell))
    assert found.status == "warning"
    for part in ("MLFLOW_TRACKING_URI=http://other:5000 has no effect", "did you mean CIFAR_SCHEDULE?", "PYTHONPATH"):
        assert part in found.message
    assert "secret" not in found.message


@pytest.mark.parametrize("deployment", [EMBEDDED, COMPOSE])
def test_the_variables_of_the_stack_and_every_setting_are_no_warning(deployment: Deployment) -> None:
    shell = {f"CIFAR_{name.upper()}": "x" for name in Settings.model_fields} | {
        "CIFAR_S3_PORT": "1",
        MARKER: "/home",
        "HOME": "/me",
    }
    assert find("variables", replace(deployment, variables=shell)).status == "ok"


@pytest.mark.parametrize("file", ["docker-compose.yaml", "docker/helm-values.yaml", "docker/gpu-worker.sh"])
def test_every_variable_of_the_deployments_is_a_setting(file: str) -> None:
    names = re.findall(r"\bCIFAR_[A-Z0-9_]+", (PROJECT / file).read_text())
    assert names
    assert find("variables", replace(COMPOSE, variables=dict.fromkeys(names, "x"))).status == "ok"


def test_in_a_container_the_servers_of_the_environment_are_the_deployment_s() -> None:
    shell = {"MLFLOW_TRACKING_URI": "http://mlflow:5000", "PYTHONPATH": "/opt/cifar"}
    assert find("variables", replace(COMPOSE, variables=shell)).status == "ok"
