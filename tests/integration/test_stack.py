"""The embedded stack as a user meets it: start, look, break, repair, stop."""

import json
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import requests

from cifar_tasks.deployment import stack as embedded
from cifar_tasks.deployment.stack.environment import AIRFLOW_USER, HOST, started_with
from cifar_tasks.deployment.stack.services import API_SERVER, services
from cifar_tasks.deployment.stack.supervisord import marked
from cifar_tasks.errors import StackError
from tests.conftest import RunningStack

PLAIN = ("airflow", "mlflow")
"""Left out where PostgreSQL and S3 show the behaviour just as well, in a tenth of the time."""


def pids(home: Path) -> dict[str, int | None]:
    return {service.name: service.pid for service in embedded.status(home)}


def processes(home: Path) -> list[psutil.Process]:
    """Those that carry the stack's mark, and their children that hide it (PostgreSQL overwrites its environment)."""
    found = {process.pid: process for process in marked(home)}
    for process in list(found.values()):
        with suppress(psutil.NoSuchProcess):  # it ended meanwhile
            found |= {child.pid: child for child in process.children(recursive=True)}
    return list(found.values())


def listening(home: Path) -> set[tuple[str, int]]:
    found = set()
    for process in processes(home):
        with suppress(psutil.NoSuchProcess, FileNotFoundError):  # a short-lived child ended meanwhile
            connections = process.net_connections("inet")
            found |= {tuple(c.laddr) for c in connections if c.status == psutil.CONN_LISTEN}
    return found


def test_every_service_runs_and_answers(stack: RunningStack) -> None:
    found = embedded.status(stack.home)
    assert {service.name for service in found} == {
        "postgres",
        "s3",
        "mlflow",
        "airflow-api-server",
        "airflow-scheduler",
        "airflow-dag-processor",
        "airflow-triggerer",
    }
    assert all(service.state == "running" and service.answering for service in found)


def test_only_the_api_server_is_told_to_share_the_memory_of_its_threads(stack: RunningStack) -> None:
    variables = []
    for each in processes(stack.home):
        with suppress(psutil.NoSuchProcess):  # a short-lived child ended meanwhile
            variables.append(each.environ())
    told = {each["SUPERVISOR_PROCESS_NAME"] for each in variables if API_SERVER.items() <= each.items()}
    assert told == {"airflow-api-server"}


def test_a_second_up_starts_nothing(stack: RunningStack) -> None:
    before, reported = pids(stack.home), list[str]()
    embedded.up(stack.home, reported.append)
    assert reported == []
    assert pids(stack.home) == before


def test_everything_listens_on_the_loopback_address_only(stack: RunningStack) -> None:
    ports = [
        port
        for service in services(stack.home, started_with(stack.home))
        for group in service.ports.values()
        for port in group
    ]
    assert listening(stack.home) == {(HOST, port) for port in ports}


def test_secrets_are_private_and_appear_in_no_log_and_on_no_command_line(stack: RunningStack) -> None:
    secrets = json.loads((stack.home / "secrets.json").read_text())
    for path in (stack.home / "secrets.json", embedded.password_file(stack.home), stack.home / "supervisord.conf"):
        assert path.stat().st_mode & 0o777 == 0o600, path
    assert stack.home.stat().st_mode & 0o066 == 0
    places = {str(path): path.read_text(errors="replace") for path in stack.home.rglob("*.log")}
    places |= {str(process): command_line(process) for process in processes(stack.home)}
    places["supervisord.conf"] = (stack.home / "supervisord.conf").read_text()
    assert len(places) > 10
    assert [(name, where) for name, secret in secrets.items() for where, text in places.items() if secret in text] == []


def command_line(process: psutil.Process) -> str:
    """Nothing for a task's process that has ended since it was listed."""
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


def test_the_generated_login_opens_airflow_and_another_does_not(stack: RunningStack) -> None:
    password = json.loads(embedded.password_file(stack.home).read_text())[AIRFLOW_USER]
    login = f"{stack.airflow_url}/auth/token"
    good = requests.post(login, json={"username": AIRFLOW_USER, "password": password}, timeout=30)
    bad = requests.post(login, json={"username": AIRFLOW_USER, "password": "guessed"}, timeout=30)
    assert (good.status_code, bad.status_code) == (201, 401)
    header = {"Authorization": f"Bearer {good.json()['access_token']}"}
    pool = requests.get(f"{stack.airflow_url}/api/v2/pools/gpu", headers=header, timeout=30)
    assert pool.json()["slots"] == 2
    assert requests.get(f"{stack.airflow_url}/api/v2/pools", timeout=30).status_code == 401


def test_the_inner_servers_of_the_storage_refuse_anonymous_access(stack: RunningStack) -> None:
    ports = started_with(stack.home)
    codes = set()
    for port in range(ports.s3_inner_port, ports.s3_inner_port + 9):
        try:
            codes.add(requests.get(f"http://{HOST}:{port}/buckets/", timeout=5).status_code)
        except requests.RequestException:
            continue  # speaks gRPC only
    assert codes
    assert codes <= {401, 404}


def test_other_ports_or_gpu_slots_need_a_restart(stack: RunningStack, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("CIFAR_S3_PORT", 19999), ("CIFAR_GPU_SLOTS", 3)):
        with monkeypatch.context() as patch:
            patch.setenv(name, str(value))
            with pytest.raises(StackError, match=rf"{name}=\d+, not {value}.*cifar down"):
                embedded.up(stack.home, print)
