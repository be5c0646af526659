"""Embedded stacks of their own, which these tests break: taken ports, dead supervisors, full stops."""

import os
import resource
import shutil
import signal
import socket
import time
from pathlib import Path

import psutil
import pytest

from cifar_tasks.deployment import stack as embedded
from cifar_tasks.deployment.stack import supervise
from cifar_tasks.deployment.stack.environment import HOST, started_with
from cifar_tasks.deployment.stack.services import inner_ports
from cifar_tasks.deployment.stack.supervisord import Supervisor, marked
from cifar_tasks.errors import StackError, StorageError
from cifar_tasks.storage.s3 import S3Store
from tests.conftest import connect
from tests.integration.test_doctor_checks import command
from tests.integration.test_stack import PLAIN, command_line, listening, processes


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
    assert not embedded.exists(own_home), "commands go on with the user's own servers"


def test_a_port_of_a_dead_service_that_another_program_took_is_named(own_home: Path) -> None:
    embedded.up(own_home, print, without=(*PLAIN, "postgres"))
    (s3,) = [service for service in embedded.status(own_home) if service.name == "s3"]
    process = psutil.Process(s3.pid)
    process.kill()
    process.wait(timeout=10)
    port = started_with(own_home).s3_port
    with socket.create_server((HOST, port)), pytest.raises(StackError, match=f"Port {port} for s3 is taken"):
        embedded.up(own_home, print, without=(*PLAIN, "postgres"))


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


def test_a_service_that_runs_and_does_not_get_ready_is_named_with_the_reason(
    own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded.up(own_home, print, without=(*PLAIN, "postgres"))
    monkeypatch.setenv("CIFAR_BUCKET", "another")
    monkeypatch.setattr(supervise, "START_SECONDS", 2)
    with pytest.raises(StackError, match=r"s3 is not ready after 2 s: refuses the request: NoSuchBucket. Log: "):
        embedded.up(own_home, print, without=(*PLAIN, "postgres"))


def test_storage_that_does_not_write_after_a_full_disk_is_started_again(own_home: Path) -> None:
    embedded.up(own_home, print, without=(*PLAIN, "postgres"))
    embedded.use(own_home)
    before = s3_status(own_home)
    server, store = psutil.Process(before.pid), S3Store("cifar")
    store.put("kept", b"from before")
    server.rlimit(psutil.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))  # as on a full disk, every write to a file fails
    with pytest.raises(StorageError, match="InternalError"):
        store.put("lost", b"")
    server.rlimit(psutil.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    with pytest.raises(StorageError, match="InternalError"):  # SeaweedFS has closed its database
        store.put("lost", b"")
    assert not s3_status(own_home).answering

    reported: list[str] = []
    embedded.up(own_home, reported.append, without=(*PLAIN, "postgres"))

    assert reported[0] == "s3 does not write: InternalError: it is started again"
    after = s3_status(own_home)
    assert (after.answering, after.pid == before.pid) == (True, False)
    store.put("written", b"")
    assert store.get("kept") == b"from before"
    embedded.up(own_home, reported.append, without=(*PLAIN, "postgres"))
    assert s3_status(own_home).pid == after.pid


def test_on_a_full_disk_nothing_is_started(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervise, "MIN_FREE", psutil.disk_usage(str(own_home)).total)
    with pytest.raises(StackError, match=rf"The disk of {own_home} is full \(\d+ MB free\). Free at least"):
        embedded.up(own_home, print)
    assert processes(own_home) == []


def s3_status(home: Path) -> embedded.ServiceStatus:
    (found,) = [service for service in embedded.status(home) if service.name == "s3"]
    return found


def test_without_its_database_mlflow_runs_and_is_not_well(own_home: Path) -> None:
    embedded.up(own_home, print, without=("airflow",))
    (postgres,) = [service for service in embedded.status(own_home) if service.name == "postgres"]
    os.kill(postgres.pid or 0, signal.SIGKILL)
    found = {service.name: service for service in embedded.status(own_home)}
    assert (found["mlflow"].state, found["mlflow"].answering) == ("running", False)
    assert (found["postgres"].answering, found["s3"].answering) == (False, True)


def test_after_the_supervisor_is_killed_up_starts_each_service_once_and_down_ends_all(own_home: Path) -> None:
    embedded.up(own_home, print, without=PLAIN)
    before = len(processes(own_home))
    kill_supervisor(own_home)
    assert not any(service.answering for service in embedded.status(own_home))
    embedded.up(own_home, print, without=PLAIN)
    assert len(processes(own_home)) <= before
    assert {service.name for service in embedded.status(own_home) if service.answering} == {"postgres", "s3"}

    ours = processes(own_home)
    kill_supervisor(own_home)
    assert embedded.down(own_home)
    assert not any(process.is_running() for process in ours)


def test_down_ends_a_stack_whose_folder_somebody_has_deleted(own_home: Path) -> None:
    embedded.up(own_home, print, without=(*PLAIN, "postgres"))
    ours = processes(own_home)
    shutil.rmtree(own_home)
    assert embedded.down(own_home)
    assert not any(process.is_running() for process in ours)
    assert not embedded.down(own_home)
    own_home.mkdir()  # the fixture removes it


def test_down_deletes_the_sockets_of_its_own_storage_and_none_of_another_stack(own_home: Path) -> None:
    embedded.up(own_home, print, without=(*PLAIN, "postgres"))
    sockets = [f"seaweedfs-*-{port}.sock" for port in inner_ports(started_with(own_home))]
    own = [path for name in sockets for path in Path("/tmp").glob(name)]  # noqa: S108 – SeaweedFS's choice
    assert own
    assert embedded.down(own_home)
    assert not any(path.exists() for path in own)
    own[0].touch()
    assert not embedded.down(own_home)
    own[0].unlink()


def kill_supervisor(home: Path) -> None:
    (supervisor,) = [process for process in marked(home) if "supervisor.supervisord" in command_line(process)]
    supervisor.kill()
    supervisor.wait(timeout=10)


def test_down_leaves_no_process_and_the_next_up_shows_what_was_there(
    own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    from cifar_tasks.storage.s3 import S3Store

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


def test_services_that_do_not_run_are_named_with_how_to_start_them(
    own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded.up(own_home, report=print, without=("airflow",))
    connect(monkeypatch, embedded.environment(own_home))
    stop = Supervisor(own_home)._call
    stop("stopProcess", "s3:s3")
    began = time.monotonic()
    status, found, _ = command()
    assert status == 1
    assert found["S3"]["status"] == found["artifacts"]["status"] == "failure"
    assert "does not answer" in found["S3"]["message"]
    assert "cifar up" in found["S3"]["remedy"]
    assert str(own_home / "logs" / "s3.log") in found["S3"]["remedy"]
    assert str(own_home / "logs" / "mlflow.log") in found["artifacts"]["remedy"]
    assert found["anonymous access"]["status"] == found["clock of S3"]["status"] == "skipped"
    assert time.monotonic() - began < 60

    stop("stopProcess", "mlflow:mlflow")
    status, found, _ = command()
    assert status == 1
    assert found["MLflow"]["status"] == "failure"
    assert str(own_home / "logs" / "mlflow.log") in found["MLflow"]["remedy"]
    assert found["artifacts"]["message"] == "see MLflow"
    assert found["PostgreSQL"]["status"] == found["roles"]["status"] == "ok"

    embedded.down(own_home)
    status, found, _ = command()
    assert status == 1
    assert {found[name]["status"] for name in ("PostgreSQL", "S3", "MLflow", "Airflow")} == {"failure"}
    assert found["roles"]["message"] == "see PostgreSQL"
