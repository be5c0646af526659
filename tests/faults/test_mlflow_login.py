"""The MLflow server of the compose deployment, with its log-in and its users, on a database of its own."""

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from benchmarks.temporary_stack import free_port
from cifar_tasks.deployment.compose.init import create_mlflow_users
from cifar_tasks.deployment.doctor.check_runner import Deployment
from cifar_tasks.deployment.stack.environment import HOST
from cifar_tasks.settings import Settings
from cifar_tasks.storage.promotion_log import Outcome, append, read_log
from cifar_tasks.storage.s3 import S3Store
from tests.conftest import RunningStack
from tests.unit.deployment.doctor.deployments import find

MODEL = "model"
LOGIN = "cifar_tasks.deployment.compose.mlflow_login:authenticate"


@pytest.fixture(scope="module")
def server(backend: RunningStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its address; its users are made as the service `init` makes them."""
    folder, name, port = tmp_path_factory.mktemp("mlflow"), f"login_{uuid.uuid4().hex[:8]}", free_port()
    url = backend.environment["MLFLOW_BACKEND_STORE_URI"]
    with closing(psycopg2.connect(url.replace("+psycopg2", ""))) as database:
        database.autocommit = True
        database.cursor().execute(f"CREATE DATABASE {name}")
    own = f"{url.rpartition('/')[0]}/{name}"
    config = folder / "auth.ini"
    config.write_text(
        f"[mlflow]\ndefault_permission = READ\ndatabase_uri = {own}\nadmin_username = admin\n"
        f"admin_password = password of admin\nauthorization_function = {LOGIN}\n"
    )
    variables = {"MLFLOW_AUTH_CONFIG_PATH": str(config), "MLFLOW_FLASK_SERVER_SECRET_KEY": "x" * 40}
    variables["MLFLOW_SERVER_ALLOWED_HOSTS"] = f"{HOST}:{port}"
    server = [Path(sys.executable).with_name("mlflow"), "server", "--app-name", "basic-auth", "--host", HOST]
    server += [
        "--port",
        str(port),
        "--workers",
        "1",
        "--backend-store-uri",
        own,
        "--artifacts-destination",
        str(folder),
    ]
    server += ["--backend-store-uri", own, "--uvicorn-opts", "--timeout-worker-healthcheck 120"]
    address = f"http://{HOST}:{port}"
    with (
        pytest.MonkeyPatch.context() as patch,
        (folder / "log").open("w") as log,
        subprocess.Popen(server, env=backend.environment | os.environ | variables, stdout=log, stderr=log) as process,
    ):
        try:
            log_in(patch, address, "admin")
            for user in ("trainer", "promoter", "reader"):
                patch.setenv(f"MLFLOW_{user.upper()}_PASSWORD", f"password of {user}")
            patch.setenv("CIFAR_EXPERIMENT", "experiment")
            patch.setenv("CIFAR_REGISTERED_MODEL", MODEL)
            create_mlflow_users()
            create_mlflow_users()  # `init` runs before each start
            yield address
        finally:
            process.terminate()


def log_in(patch: pytest.MonkeyPatch, address: str, user: str) -> MlflowClient:
    patch.setenv("MLFLOW_TRACKING_URI", address)
    patch.setenv("MLFLOW_TRACKING_USERNAME", user)
    patch.setenv("MLFLOW_TRACKING_PASSWORD", f"password of {user}")
    return MlflowClient(address)


def test_a_trainer_makes_versions_and_moves_no_alias_and_the_promoter_does(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = log_in(monkeypatch, server, "trainer")
    first, second = (trainer.create_model_version(MODEL, "s3://bucket/model").version for _ in range(2))
    with pytest.raises(MlflowException, match=r"trainer may not move aliases .* start the DAG cifar10_promotion"):
        trainer.set_registered_model_alias(MODEL, "champion", first)
    promoter = log_in(monkeypatch, server, "promoter")
    promoter.set_registered_model_alias(MODEL, "champion", first)
    promoter.set_registered_model_tag(MODEL, "cifar.promotion", "1")
    trainer = log_in(monkeypatch, server, "trainer")
    for move in (
        lambda: trainer.set_registered_model_alias(MODEL, "champion", second),
        lambda: trainer.delete_registered_model_alias(MODEL, "champion"),
        lambda: trainer.set_registered_model_tag(MODEL, "cifar.promotion", "9"),
        lambda: trainer.delete_registered_model_tag(MODEL, "cifar.promotion"),
        lambda: trainer.rename_registered_model(MODEL, "other"),
        lambda: trainer.update_registered_model(MODEL, "new description"),
        lambda: trainer.delete_model_version(MODEL, first),
        lambda: trainer.delete_registered_model(MODEL),
    ):
        with pytest.raises(MlflowException, match="trainer may not move aliases"):
            move()
    assert trainer.get_model_version_by_alias(MODEL, "champion").version == first
    assert trainer.get_registered_model(MODEL).tags["cifar.promotion"] == "1"
    trainer.create_registered_model("its-own")
    own = trainer.create_model_version("its-own", "s3://bucket/model").version
    with pytest.raises(MlflowException, match="trainer may not move aliases"):
        trainer.delete_model_version("its-own", own)
    trainer.set_model_version_tag("its-own", own, "cifar.model", "cnn")
    reader = log_in(monkeypatch, server, "reader")
    with pytest.raises(MlflowException, match="403"):
        reader.set_registered_model_alias(MODEL, "champion", second)
    admin = log_in(monkeypatch, server, "admin")
    admin.set_registered_model_alias(MODEL, "champion", second)
    assert admin.get_registered_model(MODEL).aliases == {"champion": second}


def test_the_doctor_of_a_trainer_moves_no_alias_and_names_the_command_that_does(
    server: str, s3_store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = log_in(monkeypatch, server, "trainer")
    trainer.create_registered_model("left-behind")
    trainer.create_model_version("left-behind", "s3://bucket/model")
    fields = {"action": "promote", "candidate": 1, "champion": 1, "previous": None, "challenger": None}
    created = trainer.get_registered_model("left-behind").creation_timestamp
    append(s3_store, read_log(s3_store, "left-behind"), Outcome(**fields, registry_created=created))
    deployment = Deployment(Settings(bucket=s3_store.bucket), embedded=False)
    found = find("promotion logs", deployment)
    assert found.status == "warning"
    assert "left-behind did not follow entry 1" in found.message
    assert "trainer may not move aliases" in found.message
    assert "DAG cifar10_promotion" in found.remedy
    assert "docker compose run --rm cifar promotions repair --registered-model left-behind" in found.remedy
    promoter = log_in(monkeypatch, server, "promoter")
    assert promoter.get_registered_model("left-behind").aliases == {}
    assert find("promotion logs", deployment).status == "ok"
    assert promoter.get_registered_model("left-behind").aliases == {"champion": "1"}


def test_a_wrong_password_is_refused(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    log_in(monkeypatch, server, "trainer")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "guessed")
    with pytest.raises(MlflowException, match="401"):
        MlflowClient(server).get_registered_model(MODEL)
