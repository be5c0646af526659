"""Which servers a command uses, whatever the user's shell names."""

import io
import os
import time
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from benchmarks.temporary_stack import free_ports
from cifar_tasks.cli.connect import connect, limit_threads, require_servers
from cifar_tasks.cli.main import app
from cifar_tasks.deployment.stack.environment import EXECUTOR, create_secrets, record_options
from cifar_tasks.errors import ConfigError, StackError, StorageError, TrackingError
from cifar_tasks.settings import Settings
from tests.unit.deployment.doctor.deployments import Server, handled_by


def connected(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    """Connect from a shell with these variables; what is printed."""
    monkeypatch.setattr(os, "environ", dict(variables))
    console = Console(file=io.StringIO(), width=60)
    connect(console)
    return console.file.getvalue()


def test_the_embedded_stack_wins_over_the_servers_that_the_shell_names_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_secrets(tmp_path)
    shell = {
        "CIFAR_HOME": str(tmp_path),
        "MLFLOW_TRACKING_URI": "https://me:secret@mlflow.example.com",
        "MLFLOW_TRACKING_TOKEN": "token",
        "MLFLOW_RUN_ID": "abc",
        "MLFLOW_EXPERIMENT_NAME": "theirs",
        "AWS_ENDPOINT_URL": "https://s3.example.com",
        "AWS_PROFILE": "work",
        "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true",
        "AWS_CA_BUNDLE": "/nowhere",
        "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
    }
    printed = connected(shell, monkeypatch)
    assert os.environ["MLFLOW_TRACKING_URI"] == "http://127.0.0.1:5000"
    assert os.environ["AIRFLOW__CORE__EXECUTOR"] == EXECUTOR
    assert not {*shell} - {"CIFAR_HOME", "MLFLOW_TRACKING_URI", "AIRFLOW__CORE__EXECUTOR"} & {*os.environ}
    assert "note: MLFLOW_TRACKING_URI=https://mlflow.example.com is not used" in printed
    assert "AWS_ENDPOINT_URL=https://s3.example.com is not used" in printed
    assert "secret" not in printed
    assert connected(dict(os.environ), monkeypatch) == ""


def test_a_model_of_the_settings_that_does_not_exist_is_refused_before_airflow_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIFAR_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CIFAR_MODELS", "cnn,vgg")
    done = CliRunner().invoke(app, ["up"])
    assert str(done.exception).startswith("CIFAR_MODELS: there is no model 'vgg'")
    assert os.listdir(tmp_path) == []


def test_without_a_stack_the_shell_s_servers_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shell = {"CIFAR_HOME": str(tmp_path), "MLFLOW_TRACKING_URI": "http://mlflow:5000"}
    assert connected(shell, monkeypatch) == ""
    assert os.environ == shell


@pytest.mark.parametrize(
    ("variables", "missing"),
    [
        ({"MLFLOW_TRACKING_URI": ""}, "no MLflow server"),
        ({}, "no S3 server"),
        ({"CIFAR_BUCKET": "mine"}, None),
        ({"AWS_ENDPOINT_URL_S3": "http://s3:1"}, None),
        ({"AWS_ENDPOINT_URL": "http://s3:1"}, None),
    ],
)
def test_aws_is_asked_only_for_a_bucket_that_the_user_names(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variables: dict[str, str], missing: str | None
) -> None:
    class WithLogIn(Server):
        def answer(self) -> None:
            self.send_error(401)

    with handled_by(WithLogIn) as mlflow:
        shell = {"CIFAR_HOME": str(tmp_path), "MLFLOW_TRACKING_URI": mlflow} | variables
        monkeypatch.setattr(os, "environ", shell)
        if missing is None:
            require_servers(Settings())
        else:
            with pytest.raises(ConfigError, match=missing):
                require_servers(Settings())


def test_an_mlflow_of_the_user_s_own_that_is_away_is_named_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shell = {"MLFLOW_TRACKING_URI": "http://me:secret@127.0.0.1:9", "CIFAR_BUCKET": "mine", "CIFAR_HOME": str(tmp_path)}
    monkeypatch.setattr(os, "environ", shell)
    began = time.monotonic()
    with pytest.raises(TrackingError, match=r"^MLflow at http://127.0.0.1:9 does not answer\. Is the server running"):
        require_servers(Settings())
    assert time.monotonic() - began < 6


@pytest.mark.parametrize(
    ("given", "patient", "limits"),
    [({}, False, ("30", "1")), ({"MLFLOW_HTTP_REQUEST_TIMEOUT": "300"}, False, ("300", "1")), ({}, True, (None, None))],
)
def test_an_mlflow_that_hangs_is_given_up_but_not_by_a_patient_command_nor_against_the_user_s_wish(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    given: dict[str, str],
    patient: bool,
    limits: tuple[str | None, ...],
) -> None:
    with handled_by(Answers) as mlflow:
        shell = {"MLFLOW_TRACKING_URI": mlflow, "AWS_ENDPOINT_URL_S3": "http://s3:1", "CIFAR_HOME": str(tmp_path)}
        monkeypatch.setattr(os, "environ", shell | given)
        require_servers(Settings(), patient=patient)
    names = "MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
    assert tuple(os.environ.get(name) for name in names) == limits


class Answers(Server):
    def answer(self) -> None:
        self.send_json("3")


def test_a_stack_that_does_not_run_is_named_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create_secrets(tmp_path)
    record_options(tmp_path, free_ports())
    connected({"CIFAR_HOME": str(tmp_path)}, monkeypatch)
    began = time.monotonic()
    with pytest.raises(StackError, match=r"does not answer .*cifar up"):
        require_servers(Settings())
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("command", ["studies", "dashboard"])
def test_a_database_that_is_away_is_an_error_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    create_secrets(tmp_path)
    record_options(tmp_path, free_ports())
    monkeypatch.setattr(os, "environ", {**os.environ, "CIFAR_HOME": str(tmp_path)})
    done = CliRunner().invoke(app, [command])
    assert isinstance(done.exception, StorageError)
    assert "did not answer" in str(done.exception)


@pytest.mark.parametrize(("quota", "threads"), [(1, "1"), (10_000, None)])
def test_torch_is_told_of_a_quota(monkeypatch: pytest.MonkeyPatch, quota: int, threads: str | None) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr("cifar_tasks.cli.connect.cpu_cores", lambda: quota)
    monkeypatch.setattr("cifar_tasks.cli.connect.machine_cores", lambda: 8)
    limit_threads()
    assert os.environ.get("OMP_NUM_THREADS") == threads
