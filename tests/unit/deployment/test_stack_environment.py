"""Options, secrets and variables of the embedded stack, without starting it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cifar_tasks.deployment import stack
from cifar_tasks.deployment.stack.environment import (
    StackOptions,
    create_secrets,
    overlay,
    read_options,
    read_secrets,
    record_options,
    started_with,
)
from cifar_tasks.deployment.stack.services import services
from cifar_tasks.deployment.stack.supervisord import configuration
from cifar_tasks.errors import ConfigError, StackError
from cifar_tasks.settings import PROJECT


@pytest.fixture(autouse=True)
def no_other_tracking_server(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        monkeypatch.delenv(name)


def test_secrets_are_generated_once_differ_and_are_private(tmp_path: Path) -> None:
    create_secrets(tmp_path)
    first = read_secrets(tmp_path)
    create_secrets(tmp_path)
    assert read_secrets(tmp_path) == first
    assert len(set(first.values())) == len(first)
    assert all(len(secret) >= 32 for secret in first.values())
    for path in (tmp_path / "secrets.json", stack.password_file(tmp_path)):
        assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.glob(".*")) == []


def test_a_secret_that_a_newer_version_needs_is_added_to_the_others(tmp_path: Path) -> None:
    create_secrets(tmp_path)
    old = read_secrets(tmp_path)
    del old["airflow_jwt"]
    (tmp_path / "secrets.json").write_text(json.dumps(old))
    create_secrets(tmp_path)
    assert read_secrets(tmp_path).items() > old.items()


def test_a_port_comes_from_the_environment_else_from_the_last_start_else_from_the_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record_options(tmp_path, StackOptions(s3_port=7000, mlflow_port=7001))
    monkeypatch.setenv("CIFAR_MLFLOW_PORT", "7002")
    ports = read_options(tmp_path)
    assert (ports.mlflow_port, ports.s3_port, ports.airflow_port) == (7002, 7000, 8080)
    assert started_with(tmp_path).mlflow_port == 7001


def test_a_start_is_remembered_as_it_was_and_a_damaged_note_of_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIFAR_AIRFLOW_PORT", "abc")
    assert started_with(tmp_path) == StackOptions(airflow_port=8080)
    (tmp_path / "options.json").write_text('{"mlflow_port": "five"}')
    with pytest.raises(StackError, match=r"options.json: mlflow_port: .* got 'five'. Restore it"):
        started_with(tmp_path)
    monkeypatch.delenv("CIFAR_AIRFLOW_PORT")
    for content in ('{"mlflow_port": "five"}', "[1]", "null", "{"):
        (tmp_path / "options.json").write_text(content)
        with pytest.raises(StackError, match=r"options\.json"):
            read_options(tmp_path)


def test_gpu_slots_of_the_last_start_are_those_of_services_and_clients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_secrets(tmp_path)
    monkeypatch.setenv("CIFAR_GPU_SLOTS", "5")
    record_options(tmp_path, read_options(tmp_path))
    monkeypatch.delenv("CIFAR_GPU_SLOTS")
    assert read_options(tmp_path).gpu_slots == 5
    variables = stack.environment(tmp_path)
    assert variables["CIFAR_GPU_SLOTS"] == "5"
    assert variables["AIRFLOW__CORE__PARALLELISM"] == "6"


def test_a_port_that_is_none_is_refused_by_the_name_of_its_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIFAR_AIRFLOW_PORT", "70000")
    with pytest.raises(ConfigError, match=r"^CIFAR_AIRFLOW_PORT: .*65535, got '70000'"):
        read_options(tmp_path)


SERVERS = {
    "MLFLOW_TRACKING_TOKEN": "t",
    "MLFLOW_RUN_ID": "abc",
    "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
    "GUNICORN_CMD_ARGS": "--bind 0.0.0.0:5000",
    "UVICORN_ROOT_PATH": "/elsewhere",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "http://elsewhere",
}


def test_variables_of_other_servers_do_not_reach_the_stack() -> None:
    mine = {
        "AWS_PROFILE": "work",
        "AWS_SESSION_TOKEN": "t",
        "PGHOST": "elsewhere",
        **SERVERS,
        "HOME": "/me",
        "no_proxy": "intra",
    }
    merged = overlay(mine, {"AWS_ACCESS_KEY_ID": "cifar"})
    assert merged == {
        "AWS_ACCESS_KEY_ID": "cifar",
        "HOME": "/me",
        "no_proxy": "intra,127.0.0.1",
        "NO_PROXY": "127.0.0.1",
    }


def test_a_process_becomes_a_client_of_the_stack_whatever_its_environment_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_secrets(tmp_path)
    shell = {"MLFLOW_TRACKING_URI": "http://me:secret@other:5000", "AWS_SESSION_TOKEN": "stale", "AWS_PROFILE": "work"}
    monkeypatch.setattr(os, "environ", shell)
    assert stack.use(tmp_path) == ["MLFLOW_TRACKING_URI=http://other:5000"]
    assert os.environ["MLFLOW_TRACKING_URI"] == "http://127.0.0.1:5000"
    assert os.environ["AWS_SECRET_ACCESS_KEY"] == read_secrets(tmp_path)["s3_secret_key"]
    assert not {"AWS_SESSION_TOKEN", "AWS_PROFILE"} & os.environ.keys()
    assert stack.use(tmp_path) == []


def test_without_a_stack_nothing_is_used_and_asking_for_it_says_how_to_start_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", {})
    stack.use(tmp_path)
    assert os.environ == {}
    assert stack.status(tmp_path) == []
    assert not stack.down(tmp_path)
    with pytest.raises(StackError, match="cifar up"):
        stack.environment(tmp_path)


def test_the_supervisor_file_and_the_command_lines_hold_no_secret(tmp_path: Path) -> None:
    create_secrets(tmp_path)
    everything = services(tmp_path, started_with(tmp_path))
    text = configuration(tmp_path, everything) + str([service.command for service in everything])
    assert [name for name, secret in read_secrets(tmp_path).items() if secret in text] == []


def test_no_two_services_share_a_port(tmp_path: Path) -> None:
    ports = [
        port for service in services(tmp_path, StackOptions()) for group in service.ports.values() for port in group
    ]
    assert len(set(ports)) == len(ports) == 13


def test_a_home_with_a_path_too_long_for_a_socket_is_refused(tmp_path: Path) -> None:
    home = tmp_path / ("long" * 25)
    with pytest.raises(ConfigError, match="CIFAR_HOME"):
        stack.up(home, print)
    assert not home.exists()


@pytest.mark.parametrize("asked", [stack.exists, stack.use, stack.environment, stack.status, stack.down])
def test_a_home_that_cannot_be_looked_into_is_named_with_a_remedy(
    tmp_path: Path, asked: Callable[[Path], object]
) -> None:
    home = tmp_path / ("long" * 100)
    with pytest.raises(StackError, match=rf"{home}.* cannot be read: File name too long\. .*set CIFAR_HOME"):
        asked(home)


def test_secrets_that_cannot_be_read_are_named_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "secrets.json").mkdir()
    with pytest.raises(StackError, match=r"secrets\.json cannot be read: Is a directory\. Run as its owner"):
        read_secrets(tmp_path)


def test_secrets_that_lack_are_named_and_the_next_start_makes_them(tmp_path: Path) -> None:
    (tmp_path / "secrets.json").write_text('{"airflow_jwt": "kept"}')
    with pytest.raises(
        StackError, match=r"secrets\.json lacks airflow_password, .*airflow_fernet\. .*from a backup\.$"
    ):
        read_secrets(tmp_path)  # new ones would not open the data
    kept = {"airflow_jwt": "kept", "postgres_password": "p", "airflow_fernet": "f"}
    (tmp_path / "secrets.json").write_text(json.dumps(kept))
    with pytest.raises(StackError, match=r"secrets\.json lacks airflow_password, .*s3_inner_key\. .*`cifar up`"):
        stack.environment(tmp_path)
    create_secrets(tmp_path)
    assert read_secrets(tmp_path)["airflow_jwt"] == "kept"


@pytest.mark.parametrize(
    ("arguments", "variables", "expected"),
    [
        (["up"], {"CIFAR_S3_PORT": "many"}, "error: CIFAR_S3_PORT: "),
        (["up"], {"CIFAR_HOME": "/" + "long/" * 25}, "too long for a Unix socket"),
        (["up"], {"CIFAR_HOME": "/dev/null"}, "/dev/null cannot be used: Not a directory"),
    ],
)
def test_the_command_prints_an_error_as_one_line_without_traceback(
    tmp_path: Path, arguments: list[str], variables: dict[str, str], expected: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cifar_tasks.cli", *arguments],
        env={**os.environ, "CIFAR_HOME": str(tmp_path), **variables},
        cwd=PROJECT,
        text=True,
        capture_output=True,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert expected in done.stderr
    assert done.stderr.count("\n") == 1


def test_status_of_no_stack_exits_with_1_and_says_what_to_do(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cifar_tasks.cli", "status"],
        env={**os.environ, "CIFAR_HOME": str(tmp_path)},
        cwd=PROJECT,
        text=True,
        capture_output=True,
    )
    assert done.returncode == 1
    assert "cifar up" in done.stdout


def test_a_shell_that_reads_cifar_env_is_a_client_of_the_stack(tmp_path: Path) -> None:
    home = tmp_path / "it's a $HOME"
    home.mkdir()
    create_secrets(home)
    shell = {"PATH": os.environ["PATH"], "CIFAR_HOME": str(home), "AWS_PROFILE": "work", "MLFLOW_RUN_ID": "abc"}
    command = f'set -eu; eval "$({sys.executable} -m cifar_tasks.cli env)"; {sys.executable} -c '
    command += "'import json, os; print(json.dumps(dict(os.environ)))'"
    done = subprocess.run(["sh", "-c", command], env=shell, cwd=PROJECT, capture_output=True, text=True, check=True)
    variables = json.loads(done.stdout)
    wanted = {name: value for name, value in stack.environment(home).items() if not name.startswith(("WEED", "GOMEM"))}
    assert variables.items() >= wanted.items()
    assert not {"AWS_PROFILE", "MLFLOW_RUN_ID", "WEED_JWT_SIGNING_KEY"} & variables.keys()


def test_cifar_env_without_a_stack_prints_nothing_to_be_read(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cifar_tasks.cli", "env"],
        env={**os.environ, "CIFAR_HOME": str(tmp_path)},
        cwd=PROJECT,
        text=True,
        capture_output=True,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "cifar up" in done.stderr


def test_a_name_that_the_terminal_cannot_show_is_no_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cifar_tasks.cli", "run", "--profile", "…→🐱", "--name", "x"],
        env={**os.environ, "CIFAR_HOME": str(tmp_path), "PYTHONIOENCODING": "ascii"},
        cwd=PROJECT,
        text=True,
        capture_output=True,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: --profile: ")
    assert "Traceback" not in done.stderr
