"""The doctor's runner, and its checks against faults that need no stack."""

import json
import re
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer
from threading import Thread

import pytest
from typer.testing import CliRunner

from benchmarks.temporary_stack import free_port
from cifar_tasks.cli.main import app
from cifar_tasks.deployment.doctor import CHECKS
from cifar_tasks.deployment.doctor.check_runner import (
    Check,
    CheckResult,
    Deployment,
    Finding,
    find_deployment,
    known_secrets,
    run_checks,
)
from cifar_tasks.deployment.doctor.storage_checks import clock
from cifar_tasks.errors import StackError
from cifar_tasks.settings import PROJECT, Settings
from tests.celery_worker import worker
from tests.unit.data.server import Site, serving

COMPOSE = Deployment(Settings(gpu_slots=2), embedded=False)
EMBEDDED = Deployment(Settings(home=Path("/srv/cifar"), gpu_slots=2), embedded=True)
DATABASES = ("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "AIRFLOW__CELERY__RESULT_BACKEND", "MLFLOW_BACKEND_STORE_URI")


def check(name: str, deployment: Deployment) -> CheckResult:
    """The result of one check, without those that it needs."""
    (result,) = run_checks(deployment, [each for each in CHECKS if each.name == name])
    return result


def fine(_deployment: Deployment) -> str:
    return "fine"


def raising(error: Exception) -> Callable[[Deployment], str]:
    def function(_deployment: Deployment) -> str:
        raise error

    return function


@contextmanager
def answering(content: bytes, *failures: int) -> Iterator[str]:
    """The address of a server that answers every path with `content`, after these status codes."""
    with serving(Site(content, "application/json", failures=list(failures))) as site:
        yield site.url.rpartition("/")[0]


# The runner


def test_a_check_that_breaks_stops_no_other_and_shows_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIFAR_STUDIES_URL", "postgresql://optuna:correct%20horse@host/optuna")
    broken = raising(OSError("postgresql://optuna:correct%20horse@host, that is correct horse, is not there\nmore"))
    first, second = run_checks(COMPOSE, [Check("A", "broken", broken), Check("A", "whole", fine)])
    assert first.status == "failure"
    assert first.message == "could not be checked: postgresql://optuna:***@host, that is ***, is not there"
    assert second == CheckResult("A", "whole", "ok", "fine")


def test_a_remedy_shows_no_secret_and_the_password_of_airflow_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", "battery staple")
    own = replace(COMPOSE, airflow_password="correct horse")
    finding = raising(Finding("warning", "correct horse", "battery staple"))
    (result,) = run_checks(own, [Check("A", "telling", finding)])
    assert (result.message, result.remedy) == ("***", "***")
    assert "correct horse" not in repr(own)


def test_passwords_of_variables_and_of_urls_are_secrets_the_longest_first() -> None:
    variables = {
        "AWS_ACCESS_KEY_ID": "trainer-of-models",
        "AWS_SECRET_ACCESS_KEY": "number-one",
        "AIRFLOW__CORE__FERNET_KEY": "number-two-is-longer",
        "BROKER": "redis://:number%20three@redis:6379/0",
        "BROKEN": "postgresql://me:num[ber-four@host/base",
        "SHORT_PASSWORD": "cifar",
    }
    found = known_secrets(variables)
    assert set(found) == {"number-one", "number-two-is-longer", "number%20three", "number three", "num[ber-four"}
    assert found[0] == "number-two-is-longer"


def test_a_check_without_its_precondition_is_skipped_with_the_reason() -> None:
    never = raising(AssertionError("was run"))
    results = run_checks(
        COMPOSE,
        [
            Check("A", "S3", raising(Finding("failure", "down", "start it"))),
            Check("A", "Redis", raising(Finding("skipped", "no Celery here"))),
            Check("A", "pool", raising(Finding("warning", "3 slots", "apply it"))),
            Check("A", "write", never, ("S3",)),
            Check("A", "queues", never, ("Redis",)),
            Check("A", "slots", fine, ("pool",)),
        ],
    )
    assert results[3] == CheckResult("A", "write", "skipped", "see S3")
    assert results[4] == CheckResult("A", "queues", "skipped", "no Celery here")
    assert results[5].status == "ok"


def test_checks_run_beside_each_other() -> None:
    def slow(_deployment: Deployment) -> str:
        time.sleep(0.4)
        return "slept"

    began = time.monotonic()
    run_checks(COMPOSE, [Check("A", f"check {number}", slow) for number in range(8)])
    assert time.monotonic() - began < 1.6


def test_a_remedy_is_the_own_one_then_that_of_the_check_then_how_to_start_the_service() -> None:
    def documented(_deployment: Deployment) -> str:
        """Apply it with:
        {restart}, and keep {secrets}"""
        raise Finding("warning", "something")

    def skipped(_deployment: Deployment) -> str:
        """Do it."""
        raise Finding("skipped", "nothing to do")

    start = raising(Finding("failure", "something"))
    checks = [
        Check("A", "own", raising(Finding("failure", "something", "repair it"))),
        Check("A", "documented", documented),
        Check("A", "started", start, services=("s3",)),
        Check("A", "skipped", skipped, services=("s3",)),
    ]
    assert [result.remedy for result in run_checks(EMBEDDED, checks)] == [
        "repair it",
        "Apply it with: cifar down, then cifar up, and keep /srv/cifar/secrets.json",
        "cifar up (first cifar down if it hangs); the reason: /srv/cifar/logs/s3.log",
        "",
    ]
    assert [result.remedy for result in run_checks(COMPOSE, checks)] == [
        "repair it",
        "Apply it with: docker compose up -d, and keep .env",
        "docker compose up -d storage (restart if it hangs); the reason: docker compose logs storage",
        "",
    ]


@pytest.mark.parametrize("deployment", [COMPOSE, EMBEDDED])
def test_every_warning_and_every_failure_has_a_remedy(deployment: Deployment) -> None:
    for error in (Finding("warning", "x"), Finding("failure", "x"), StackError("x"), ValueError("x")):
        for each in CHECKS:

            def broken(_deployment: Deployment, error: Exception = error) -> str:
                raise error

            broken.__doc__ = each.function.__doc__
            (result,) = run_checks(deployment, [replace(each, function=broken)])
            assert len(result.remedy) > 10
            assert "{" not in result.remedy


def test_every_check_comes_after_those_that_it_needs_and_areas_stay_together() -> None:
    names = [each.name for each in CHECKS]
    assert len(names) == len(set(names)) == 30
    assert all(names.index(need) < names.index(each.name) for each in CHECKS for need in each.needs)
    areas = [each.area for each in CHECKS]
    assert [area for area, before in zip(areas, ["", *areas], strict=False) if area != before] == list(
        dict.fromkeys(areas)
    )


# The deployment


def test_without_a_deployment_the_command_says_how_to_start_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIFAR_HOME", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(StackError, match="cifar up"):
        find_deployment(Settings())


def test_another_server_of_mlflow_is_another_deployment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    monkeypatch.setenv("CIFAR_AIRFLOW_PASSWORD", "correct horse")
    monkeypatch.setenv("CIFAR_AIRFLOW_API", "http://api-server:8080")
    monkeypatch.setenv("CIFAR_AIRFLOW_URL", "http://localhost:8080")
    found = find_deployment(Settings(home=tmp_path))
    assert not found.embedded
    assert (found.airflow_url, found.airflow_password) == ("http://api-server:8080", "correct horse")


def test_the_table_is_at_most_100_columns_wide_and_the_exit_status_tells_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    for name, value in {"MLFLOW_TRACKING_URI": nowhere, "AWS_ENDPOINT_URL_S3": nowhere, "COLUMNS": "140"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CIFAR_HOME", str(tmp_path))
    done = CliRunner().invoke(app, ["doctor"], env=MLFLOW_TIMEOUTS)
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    assert done.exit_code == 1
    assert max(map(len, lines)) <= 100
    assert any(line.split()[:3] == ["failure", "MLflow", "does"] for line in lines)
    assert any(line.strip().startswith("→ docker compose up -d mlflow") for line in lines)
    assert any(line.split() == ["skipped", "artifacts", "see", "MLflow"] for line in lines)
    assert "3 failure" in lines[-1]


MLFLOW_TIMEOUTS = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "5", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
"""Set by the command for its own process; given to the runner, which takes them back."""


# Services


@pytest.mark.parametrize(
    ("status", "remedy"), [(401, "docker compose up -d init"), (503, "docker compose logs mlflow")]
)
def test_mlflow_that_refuses_and_mlflow_that_is_not_well_have_different_remedies(
    status: int, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering(b"", status) as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        result = check("MLflow", COMPOSE)
    assert result.status == "failure"
    assert str(status) in result.message
    assert remedy in result.remedy


def test_mlflow_is_asked_as_the_user_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    class KnowsTrainer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = b64encode(b"trainer:correct horse").decode()
            self.send_response(200 if self.headers["Authorization"] == f"Basic {known}" else 401)
            self.end_headers()
            self.wfile.write(version("mlflow-skinny").encode())

        def log_message(self, *_words: object) -> None:
            """Silent."""

    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "trainer")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "correct horse")
    with handled_by(KnowsTrainer) as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        assert check("MLflow", COMPOSE).status == "ok"
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "guessed horse")
        assert check("MLflow", COMPOSE).status == "failure"


def test_another_version_than_the_installed_one_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(b"1.2.3") as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        mlflow = check("MLflow", COMPOSE)
    assert mlflow.status == "warning"
    assert mlflow.message.startswith(f"version 1.2.3 at {address}; here ")
    with answering(b'{"version": "3.0.0"}') as address:
        assert check("Airflow", replace(COMPOSE, airflow_url=address)).status == "warning"


def test_a_version_of_what_is_not_installed_is_no_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with answering(b'{"version": "3.0.0"}') as address:
        assert check("Airflow", replace(COMPOSE, airflow_url=address)).status == "ok"


def test_airflow_that_is_not_there_is_a_failure_and_no_airflow_at_all_is_skipped() -> None:
    gone = check("Airflow", replace(COMPOSE, airflow_url=f"http://127.0.0.1:{free_port()}"))
    assert gone.status == "failure"
    assert "docker compose up -d api-server" in gone.remedy
    assert check("Airflow", COMPOSE).status == "skipped"


def test_each_component_of_airflow_without_a_heartbeat_is_named_as_its_stack_calls_it() -> None:
    health = {"scheduler": {"status": "healthy"}, "dag_processor": {"status": "unhealthy"}, "triggerer": None}
    with answering(json.dumps(health).encode()) as address:
        compose = check("Airflow components", replace(COMPOSE, airflow_url=address))
        embedded = check("Airflow components", replace(EMBEDDED, airflow_url=address))
    assert compose.status == embedded.status == "failure"
    assert compose.message == "without a heartbeat: dag-processor, triggerer"
    assert "docker compose up -d scheduler dag-processor triggerer" in compose.remedy
    assert "/srv/cifar/logs/airflow-dag-processor.log" in embedded.remedy


def test_components_with_a_heartbeat_are_ok() -> None:
    health = {name: {"status": "healthy"} for name in ("scheduler", "dag_processor", "triggerer")}
    with answering(json.dumps(health).encode()) as address:
        assert check("Airflow components", replace(COMPOSE, airflow_url=address)).status == "ok"


def test_no_database_in_the_environment_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*DATABASES, "CIFAR_STUDIES_URL"):
        monkeypatch.delenv(name, raising=False)
    result = check("PostgreSQL", COMPOSE)
    assert (result.status, result.message) == ("failure", "no role can log in: no database is in the environment")
    assert "docker compose up -d postgres" in result.remedy


@pytest.mark.parametrize(
    ("broker", "status", "message"),
    [
        ("", "skipped", "no Celery here"),
        ("amqp://me:word@rabbit/", "skipped", "Celery's broker is amqp"),
        ("redis://:word@127.0.0.1:1/0", "failure", "does not answer"),
    ],
)
def test_redis_is_checked_where_celery_uses_it(
    broker: str, status: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__CELERY__BROKER_URL", broker)
    result = check("Redis", COMPOSE)
    assert (result.status, result.message) == (status, message)
    assert ("docker compose up -d redis" in result.remedy) == (status == "failure")


def test_redis_that_refuses_the_password_has_its_variable_in_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refuses(StreamRequestHandler):
        def handle(self) -> None:
            while self.rfile.readline():
                self.wfile.write(b"-WRONGPASS invalid username-password pair or user is disabled.\r\n")

    with ThreadingTCPServer(("127.0.0.1", 0), Refuses) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setenv(
            "AIRFLOW__CELERY__BROKER_URL", f"redis://:guessed-word@127.0.0.1:{server.server_address[1]}/0"
        )
        result = check("Redis", COMPOSE)
        server.shutdown()
    assert result.status == "failure"
    assert "invalid username-password pair" in result.message
    assert "REDIS_PASSWORD in .env" in result.remedy


# Anonymous access and clocks


def test_an_airflow_that_answers_without_log_in_is_a_failure() -> None:
    with answering(b"[]") as address:
        result = check("Airflow log-in", replace(COMPOSE, airflow_url=address, airflow_password="correct horse"))
    assert (result.status, result.message) == ("failure", "a request without log-in gets 200")
    assert "AUTH_MANAGER" in result.remedy


def test_airflow_without_a_known_password_is_skipped() -> None:
    with answering(b"", 401) as address:
        result = check("Airflow log-in", replace(COMPOSE, airflow_url=address))
    assert result.status == "skipped"
    assert "CIFAR_AIRFLOW_PASSWORD is not set" in result.message


def test_mlflow_that_refuses_who_does_not_log_in_is_ok(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login admin password word")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "trainer")
    logins: list[str | None] = []

    class RefusesAnonymous(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            logins.append(self.headers["Authorization"])
            self.send_error(401)

        def log_message(self, *_words: object) -> None:
            """Silent."""

    with handled_by(RefusesAnonymous) as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        assert check("MLflow log-in", COMPOSE).status == "ok"
    assert logins == [None]


@pytest.mark.parametrize(
    ("here", "message"),
    [
        (1000.0, "0 s behind"),
        (1000.9, "0 s behind"),
        (1004.0, "3 s ahead"),
        (998.0, "2 s behind"),
        (1030.9, "30 s ahead"),
        (1031.5, "30 s ahead"),
        (969.0, "31 s behind"),
        (1301.5, "300 s ahead"),
        (699.0, "301 s behind"),
    ],
)
def test_whole_seconds_of_a_date_header_are_no_difference(here: float, message: str) -> None:
    with frozen_at_1000_seconds() as address:
        (result,) = run_checks(
            replace(COMPOSE, now=lambda: here), [Check("A", "clock", clock(lambda _deployment: address))]
        )
    assert result.message == f"this machine is {message}"
    off = max(here - 1001, 1000 - here)
    assert result.status == ("failure" if off > 300 else "warning" if off > 30 else "ok")
    assert ("NTP" in result.remedy) == (off > 30)


def test_a_clock_of_a_server_that_does_not_answer_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    assert check("clock of MLflow", COMPOSE).status == "skipped"


@contextmanager
def frozen_at_1000_seconds() -> Iterator[str]:
    class Frozen(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(403)

        def date_time_string(self, timestamp: float | None = None) -> str:
            return "Thu, 01 Jan 1970 00:16:40 GMT"

        def log_message(self, *_words: object) -> None:
            """Silent."""

    with handled_by(Frozen) as address:
        yield address


@contextmanager
def handled_by(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


# Workers: Celery's own, in this process


def test_a_queue_that_no_worker_consumes_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CELERY__BROKER_URL", "memory://")
    deployment = replace(COMPOSE, timeout=2)
    with worker("default"):
        alone = check("queues", deployment)
        with worker("gpu"):
            both = check("queues", deployment)
    assert (alone.status, alone.message) == ("failure", "default: 1 workers, gpu: 0 workers")
    assert "docker compose up -d worker gpu-worker" in alone.remedy
    assert (both.status, both.message) == ("ok", "default: 1 workers, gpu: 1 workers")


# This machine


def test_little_space_is_a_warning_and_less_a_failure(tmp_path: Path) -> None:
    own = Deployment(Settings(home=tmp_path / "not" / "there"), embedded=True, disk_warning=0, disk_failure=0)
    assert check("disk", own).status == "ok"
    assert check("disk", replace(own, disk_warning=1e18)).status == "warning"
    full = check("disk", replace(own, disk_failure=1e18))
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
    assert check(name, replace(EMBEDDED, **{limits[name]: 0})).status == "ok"  # type: ignore[arg-type]
    little = check(name, replace(EMBEDDED, **{limits[name]: 1e18}))  # type: ignore[arg-type]
    assert little.status == "warning"
    assert "GB" in little.message


def test_shared_memory_is_of_interest_where_trainings_run() -> None:
    assert check("shared memory", COMPOSE).status == "skipped"


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


def torch_is(text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> CheckResult:
    """The check of the GPU, where `import torch` in a new process runs `text`."""
    (folder / "torch.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return check("GPU", replace(COMPOSE, torch_timeout=3))


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
    assert check("GPU", COMPOSE).status == "skipped"


# The user's shell


def test_variables_that_lead_elsewhere_or_that_nothing_reads_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    shell = {"MLFLOW_TRACKING_URI": "http://me:secret@other:5000", "CIFAR_SHEDULE": "@daily", "PYTHONPATH": "/opt/ros"}
    found = check("variables", replace(EMBEDDED, variables=shell))
    assert found.status == "warning"
    for part in ("MLFLOW_TRACKING_URI=http://other:5000 has no effect", "did you mean CIFAR_SCHEDULE?", "PYTHONPATH"):
        assert part in found.message
    assert "secret" not in found.message


@pytest.mark.parametrize("deployment", [EMBEDDED, COMPOSE])
def test_the_variables_of_the_stack_and_every_setting_are_no_warning(deployment: Deployment) -> None:
    shell = {f"CIFAR_{name.upper()}": "x" for name in Settings.model_fields} | {"CIFAR_S3_PORT": "1", "HOME": "/me"}
    assert check("variables", replace(deployment, variables=shell)).status == "ok"


@pytest.mark.parametrize("file", ["docker-compose.yaml", "docker/helm-values.yaml", "docker/gpu-worker.sh"])
def test_every_variable_of_the_deployments_is_a_setting(file: str) -> None:
    names = re.findall(r"\bCIFAR_[A-Z0-9_]+", (PROJECT / file).read_text())
    assert names
    assert check("variables", replace(COMPOSE, variables=dict.fromkeys(names, "x"))).status == "ok"


def test_in_a_container_the_servers_of_the_environment_are_the_deployment_s() -> None:
    shell = {"MLFLOW_TRACKING_URI": "http://mlflow:5000", "PYTHONPATH": "/opt/cifar"}
    assert check("variables", replace(COMPOSE, variables=shell)).status == "ok"
