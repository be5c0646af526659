"""The embedded stack as a user meets it: start, look, break, repair, stop."""

import json
import os
import signal
import socket
from pathlib import Path

import psutil
import pytest
import requests

from cifar_tasks import stack as embedded
from cifar_tasks.errors import StackError
from cifar_tasks.stack.environment import AIRFLOW_USER, HOST, started_with
from cifar_tasks.stack.services import services
from cifar_tasks.stack.supervisord import marked
from tests.conftest import RunningStack, connect

PLAIN = ("airflow", "mlflow")
"""Left out where PostgreSQL and S3 show the behaviour just as well, in a tenth of the time."""


def pids(home: Path) -> dict[str, int | None]:
    return {service.name: service.pid for service in embedded.status(home)}


def processes(home: Path) -> list[psutil.Process]:
    """Those that carry the stack's mark, and their children that hide it (PostgreSQL overwrites its environment)."""
    found = {process.pid: process for process in marked(home)}
    for process in list(found.values()):
        found |= {child.pid: child for child in process.children(recursive=True)}
    return list(found.values())


def listening(home: Path) -> set[tuple[str, int]]:
    return {
        (connection.laddr.ip, connection.laddr.port)
        for process in processes(home)
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }


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
    places |= {str(process): " ".join(process.cmdline()) for process in processes(stack.home)}
    places["supervisord.conf"] = (stack.home / "supervisord.conf").read_text()
    assert len(places) > 10
    assert [(name, where) for name, secret in secrets.items() for where, text in places.items() if secret in text] == []


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


def test_the_inner_servers_of_the_storage_refuse_strangers(stack: RunningStack) -> None:
    ports = started_with(stack.home)
    codes = set()
    for port in range(ports.s3_inner_port, ports.s3_inner_port + 9):
        try:
            codes.add(requests.get(f"http://{HOST}:{port}/buckets/", timeout=5).status_code)
        except requests.RequestException:
            continue  # speaks gRPC only
    assert codes
    assert codes <= {401, 404}


def test_a_killed_service_is_seen_and_repaired_and_its_children_do_not_stay(stack: RunningStack) -> None:
    before = pids(stack.home)
    killed = psutil.Process(before["mlflow"])
    children = killed.children(recursive=True)
    assert children
    killed.kill()
    killed.wait(timeout=10)
    seen = {service.name: service for service in embedded.status(stack.home)}
    assert seen["mlflow"].state == "exited"
    assert not seen["mlflow"].answering

    reported: list[str] = []
    embedded.up(stack.home, reported.append)
    assert len(reported) == 1
    assert reported[0].startswith("mlflow ready")
    assert all(service.answering for service in embedded.status(stack.home))
    assert not any(child.is_running() for child in children)
    assert {name for name, pid in pids(stack.home).items() if pid != before[name]} == {"mlflow"}


def test_other_ports_need_a_restart(stack: RunningStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIFAR_S3_PORT", "19999")
    with pytest.raises(StackError, match=r"CIFAR_S3_PORT=\d+, not 19999.*cifar down"):
        embedded.up(stack.home, print)


def test_a_port_taken_by_another_program_is_named_before_anything_starts(
    own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server((HOST, 0)) as other:
        port = other.getsockname()[1]
        monkeypatch.setenv("CIFAR_S3_PORT", str(port))
        with pytest.raises(StackError, match=f"Port {port} for s3.*process {os.getpid()}.*CIFAR_S3_PORT"):
            embedded.up(own_home, print)
    assert processes(own_home) == []
    assert started_with(own_home).s3_port != port


def test_a_home_of_another_user_is_left_alone(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: own_home.stat().st_uid + 1)
    with pytest.raises(StackError, match="belongs to another user"):
        embedded.up(own_home, print)
    assert not (own_home / "secrets.json").exists()
    monkeypatch.undo()


def test_a_service_that_cannot_start_is_named_with_the_end_of_its_log(own_home: Path) -> None:
    embedded.up(own_home, print, without=PLAIN)
    embedded.down(own_home)
    (own_home / "postgres" / "18" / "PG_VERSION").write_text("9\n")
    with pytest.raises(StackError, match=r"(?s)postgres stopped while it was starting.*postgres\.log.*version"):
        embedded.up(own_home, print, without=PLAIN)


def test_after_the_supervisor_is_killed_up_starts_each_service_once(own_home: Path) -> None:
    embedded.up(own_home, print, without=PLAIN)
    before = len(processes(own_home))
    (supervisor,) = [process for process in marked(own_home) if "supervisor.supervisord" in process.cmdline()]
    os.kill(supervisor.pid, signal.SIGKILL)
    supervisor.wait(timeout=10)
    assert not any(service.answering for service in embedded.status(own_home))
    embedded.up(own_home, print, without=PLAIN)
    assert len(processes(own_home)) <= before
    assert {service.name for service in embedded.status(own_home) if service.answering} == {"postgres", "s3"}


def test_down_leaves_no_process_and_the_next_up_shows_what_was_there(
    own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    from cifar_tasks.storage import S3Store

    embedded.up(own_home, print, without=("airflow",))
    connect(monkeypatch, embedded.environment(own_home))
    with mlflow.start_run(run_name="before") as run:
        mlflow.log_metric("accuracy", 0.5)
        mlflow.log_text("figure", "note.txt")
    S3Store("cifar").put("kept", b"content")
    ours, ports = processes(own_home), listening(own_home)

    assert embedded.down(own_home)
    assert not any(process.is_running() for process in ours)
    assert processes(own_home) == []
    for address in ports:
        socket.create_server(address).close()
    assert not embedded.down(own_home)

    embedded.up(own_home, print, without=("airflow",))
    assert mlflow.get_run(run.info.run_id).data.metrics == {"accuracy": 0.5}
    assert mlflow.artifacts.load_text(f"{run.info.artifact_uri}/note.txt") == "figure"
    assert S3Store("cifar").get("kept") == b"content"
