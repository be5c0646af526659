"""`cifar doctor` on PostgreSQL, S3 and MLflow that run, and with faults put in."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import botocore.auth
import psycopg2
import pytest
from typer.testing import CliRunner

from cifar_tasks.cli.main import app
from cifar_tasks.deployment.compose.airflow_component import FINGERPRINTS
from cifar_tasks.deployment.doctor import CHECKS
from cifar_tasks.deployment.doctor.check_runner import Deployment, Finding, find_deployment, run_checks
from cifar_tasks.settings import read_settings
from cifar_tasks.storage.s3 import ObjectRef, S3Store, s3_client, sha256_hex
from cifar_tasks.tracking import runs
from tests.conftest import RunningStack


@pytest.fixture
def own_logs(tracked: RunningStack, s3_store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the promotion logs of other tests, which may just have damaged one: the doctor looks at all."""
    monkeypatch.setenv("CIFAR_BUCKET", s3_store.bucket)
    monkeypatch.setenv("CIFAR_REGISTERED_MODEL", s3_store.bucket)


@pytest.fixture
def deployment(own_logs: None) -> Deployment:
    """Whether the machine of the test is a good one is not the question."""
    roomy = {"disk_warning": 0, "disk_failure": 0, "memory_warning": 0, "shared_memory_warning": 0}
    return replace(find_deployment(read_settings()), **roomy)  # type: ignore[arg-type]


@pytest.fixture
def own_bucket(deployment: Deployment, s3_store: S3Store) -> Iterator[Deployment]:
    """A deployment of a team. Policies of its bucket may be set."""
    yield replace(deployment, embedded=False)
    set_policy(s3_store.bucket, "Allow", "s3:DeleteObject")


def results(deployment: Deployment, *names: str) -> dict[str, Finding]:
    """Of the named checks, or of all."""
    return run_checks(deployment, [check for check in CHECKS if not names or check.name in names])


def check(name: str, deployment: Deployment) -> Finding:
    return results(deployment, name)[name]


def command() -> tuple[int, dict[str, dict[str, str]], str]:
    """Exit status, objects by their check, and all that was printed, of `cifar doctor --json`."""
    done = CliRunner().invoke(app, ["doctor", "--json"])
    return done.exit_code, {found["check"]: found for found in json.loads(done.stdout)}, done.output


def set_policy(bucket: str, effect: str, *actions: str) -> None:
    """For everybody, with a key and without."""
    resources = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
    statement = {"Effect": effect, "Principal": "*", "Action": list(actions), "Resource": resources}
    s3_client().put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}))


def test_a_stack_without_airflow_is_ok_and_one_run_is_all_that_is_left(deployment: Deployment) -> None:
    check("artifacts", deployment)
    found = results(deployment)
    assert [result for result in found.values() if result.status in ("warning", "failure")] == []
    assert found["Airflow"].message == "no Airflow here: the stack was started without it; cifar up adds it"
    ok = {name for name, result in found.items() if result.status == "ok"}
    assert {"PostgreSQL", "S3", "MLflow", "write and read", "conditional write", "anonymous access"} <= ok
    assert {"artifacts", "clock of S3", "clock of MLflow", "roles", "disk", "memory", "GPU"} <= ok
    assert found["promotion logs"].message == "no registered model has a promotion log yet"
    assert list(S3Store(deployment.settings.bucket).keys("runs/doctor/")) == []
    client = runs.mlflow_client()
    logged = client.search_runs([runs.experiment_id(client, "doctor")])
    assert [run.info.status for run in logged] == ["FINISHED"]


def test_the_json_has_an_object_per_check(own_logs: None) -> None:
    _, found, _ = command()
    assert list(found) == [check.name for check in CHECKS]
    assert set(found["S3"]) == {"area", "check", "status", "message", "remedy"}
    assert found["S3"]["message"].startswith("SeaweedFS ")


def test_the_table_tells_what_is_ok(own_logs: None) -> None:
    done = CliRunner().invoke(app, ["doctor"])
    assert "an existing object is not overwritten" in done.output
    assert "Traceback" not in done.output


def test_a_wrong_s3_key_is_named_with_its_remedy_and_not_shown(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "correct-horse-battery")
    found = results(deployment)
    assert found["S3"].status == "failure"
    assert "SignatureDoesNotMatch" in found["S3"].message
    assert "as cifar" in found["S3"].message
    assert "AWS_SECRET_ACCESS_KEY" in found["S3"].remedy
    assert found["write and read"].message == "see S3"
    assert found["clock of S3"].status == found["MLflow"].status == "ok"
    assert "correct-horse-battery" not in str(found)


def test_the_command_uses_the_key_of_the_embedded_stack_whatever_the_shell_says(
    own_logs: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "correct-horse-battery")
    _, found, output = command()
    assert found["S3"]["status"] == "ok"
    assert "correct-horse-battery" not in output


# S3


def test_a_bucket_that_is_missing_is_named(deployment: Deployment) -> None:
    settings = deployment.settings.model_copy(update={"bucket": "missing-bucket"})
    found = check("S3", replace(deployment, settings=settings))
    assert found.status == "failure"
    assert "bucket missing-bucket" in found.message
    assert found.remedy == "cifar down, then cifar up"


def test_a_refusal_because_of_the_time_has_the_clocks_in_its_remedy(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = datetime.now(UTC) - timedelta(hours=1)
    with monkeypatch.context() as patch:
        patch.setattr(botocore.auth, "get_current_datetime", lambda remove_tzinfo=True: late.replace(tzinfo=None))
        found = check("S3", deployment)
    assert "RequestTimeTooSkewed" in found.message
    assert "NTP" in found.remedy


def test_a_bucket_that_refuses_to_be_written_is_a_failure(own_bucket: Deployment) -> None:
    set_policy(own_bucket.settings.bucket, "Deny", "s3:PutObject")
    found = check("write and read", own_bucket)
    assert found.status == "failure"
    assert "AccessDenied" in found.message
    assert "docker compose up -d init" in found.remedy


class Damages(S3Store):
    def put(self, key: str, data: bytes) -> ObjectRef:
        ref = super().put(key, data)
        super().put(key, data[:-1])
        return ref


class IgnoresConditions(S3Store):
    def put_if(self, key: str, data: bytes, etag: str | None) -> str:
        return self.put(key, data).sha256


@pytest.mark.parametrize(
    ("store", "name", "message", "remedy"),
    [(Damages, "write and read", "damaged", "disks"), (IgnoresConditions, "conditional write", "ignored", "server")],
)
def test_storage_that_damages_or_overwrites_is_a_failure(
    store: type[S3Store], name: str, message: str, remedy: str, deployment: Deployment
) -> None:
    class Faulty(Deployment):
        def store(self) -> S3Store:
            return store(self.settings.bucket)

    found = check(name, Faulty(deployment.settings, deployment.embedded))
    assert found.status == "failure"
    assert message in found.message
    assert remedy in found.remedy
    assert list(S3Store(deployment.settings.bucket).keys("runs/doctor/")) == []


def test_a_public_bucket_is_a_failure(own_bucket: Deployment) -> None:
    set_policy(own_bucket.settings.bucket, "Allow", "s3:ListBucket")
    found = check("anonymous access", own_bucket)
    assert (found.status, found.message) == ("failure", "a request without log-in gets 200")
    assert "public access" in found.remedy


def test_a_key_that_may_delete_datasets_is_told_except_in_the_embedded_stack(
    own_bucket: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert check("delete permission", replace(own_bucket, embedded=True)).status == "skipped"
    assert check("delete permission", own_bucket).status == "warning"

    class WithKeyThatDeletes(Deployment):
        def store(self) -> S3Store:
            return S3Store(self.settings.bucket, client)

    client = s3_client()
    with monkeypatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "trainer")
        trainer = check("delete permission", WithKeyThatDeletes(own_bucket.settings, embedded=False))
    assert trainer.status == "failure"
    assert trainer.message == "trainer, and with it every task that has its key, may delete datasets"


def test_a_key_that_may_not_delete_datasets_is_ok(own_bucket: Deployment) -> None:
    set_policy(own_bucket.settings.bucket, "Deny", "s3:DeleteObject")
    found = check("delete permission", own_bucket)
    assert (found.status, found.message) == ("ok", "cifar may not delete datasets")


@pytest.mark.parametrize(("ahead", "status"), [(120, "warning"), (-120, "warning"), (600, "failure")])
def test_a_clock_that_is_off_is_told_for_both_servers(deployment: Deployment, ahead: int, status: str) -> None:
    found = results(replace(deployment, now=lambda: time.time() + ahead), "clock of S3", "clock of MLflow")
    for result in found.values():
        assert result.status == status
        assert ("ahead" if ahead > 0 else "behind") in result.message
        assert "NTP" in result.remedy


def test_shared_secrets_are_compared_with_those_that_were_recorded(
    own_bucket: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AIRFLOW__API_AUTH__JWT_SECRET", raising=False)
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", "somebody's")
    missing = check("shared secrets", own_bucket)
    assert missing.status == "failure"
    assert "init has not recorded" in missing.message
    assert "docker compose up -d init" in missing.message
    recorded = {
        "AIRFLOW__CORE__FERNET_KEY": sha256_hex(b"the old one"),
        "AIRFLOW__API_AUTH__JWT_SECRET": sha256_hex(b"correct horse"),
    }
    own_bucket.store().put(FINGERPRINTS, json.dumps(recorded).encode())
    found = check("shared secrets", own_bucket)
    assert found.status == "failure"
    assert found.message == "AIRFLOW__API_AUTH__JWT_SECRET (is not set), AIRFLOW__CORE__FERNET_KEY (differs)"
    assert ".env" in found.remedy
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", "the old one")
    monkeypatch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "correct horse")
    assert check("shared secrets", own_bucket).status == "ok"
    assert check("shared secrets", replace(own_bucket, embedded=True)).status == "skipped"


# MLflow


def test_a_deleted_experiment_is_restored(deployment: Deployment) -> None:
    client = runs.mlflow_client()
    client.delete_experiment(runs.experiment_id(client, "doctor"))
    assert check("artifacts", deployment).status == "ok"


def test_an_artifact_that_is_older_than_the_logged_one_is_a_failure(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    assert check("artifacts", deployment).status == "ok"
    monkeypatch.setattr(MlflowClient, "log_text", lambda *_arguments: None)
    found = check("artifacts", deployment)
    assert found.status == "failure"
    assert "mlflow.log" in found.remedy


def test_an_mlflow_that_answers_without_log_in_is_a_failure_where_there_is_a_log_in(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert check("MLflow log-in", deployment).status == "skipped"
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "trainer")
    found = check("MLflow log-in", deployment)
    assert (found.status, found.message) == ("failure", "a request without log-in gets 200")
    assert "basic-auth" in found.remedy


# PostgreSQL


def test_a_role_that_cannot_log_in_is_named_and_its_password_not_shown(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = os.environ["CIFAR_STUDIES_URL"].replace("cifar:", "cifar:wrong-")
    monkeypatch.setenv("CIFAR_STUDIES_URL", wrong)
    found = results(deployment, "PostgreSQL", "roles")
    assert found["PostgreSQL"].status == "ok"
    assert found["roles"].status == "failure"
    assert 'optuna: password authentication failed for user "cifar"' in found["roles"].message
    assert "secrets.json" in found["roles"].remedy
    assert "airflow opens its own" in found["roles"].message


def test_a_url_may_be_spelled_for_celery_or_for_another_driver(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    rest = os.environ["CIFAR_STUDIES_URL"].partition("://")[2]
    monkeypatch.setenv("AIRFLOW__CELERY__RESULT_BACKEND", f"db+postgresql+psycopg2://{rest}")
    monkeypatch.setenv("CIFAR_STUDIES_URL", f"postgres+asyncpg://{rest}")
    monkeypatch.setenv("MLFLOW_BACKEND_STORE_URI", "sqlite:///mlflow.db")
    message = "airflow opens its own, celery opens its own, optuna opens its own"
    assert check("roles", deployment).message == message


def test_a_postgresql_that_airflow_does_not_support_is_a_failure(deployment: Deployment) -> None:
    assert check("PostgreSQL", deployment).message.startswith("version 18.")
    old = check("PostgreSQL", replace(deployment, oldest_postgresql=19))
    assert old.status == "failure"
    assert "Dump the databases" in old.remedy


def test_every_role_opens_its_own_database_only(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    team = replace(deployment, embedded=False)
    assert check("separation", deployment).status == "skipped"
    everything = check("separation", team)
    assert everything.status == "failure"
    assert "airflow opens mlflow" in everything.message
    assert "REVOKE CONNECT" in everything.remedy
    with two_roles(monkeypatch) as sql:
        assert check("separation", team).status == "ok"
        sql("GRANT CONNECT ON DATABASE doctor_two TO doctor_one")
        opened = check("separation", team)
        assert (opened.status, opened.message) == ("failure", "mlflow opens doctor_two")
        sql("REVOKE CONNECT ON DATABASE doctor_two FROM doctor_one")
        sql("ALTER ROLE doctor_one CONNECTION LIMIT 0")
        unclear = check("separation", team)
        assert unclear.status == "warning"
        assert 'too many connections for role "doctor_one"' in unclear.message


@contextmanager
def two_roles(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """The environment of a deployment with two databases, each open for one role; yields a function that runs SQL."""
    url = os.environ["MLFLOW_BACKEND_STORE_URI"].replace("+psycopg2", "")
    connection = psycopg2.connect(url)
    connection.autocommit = True

    def sql(statement: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute(statement)

    databases = ("airflow", "mlflow", "optuna")
    for name in ("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "AIRFLOW__CELERY__RESULT_BACKEND"):
        monkeypatch.delenv(name, raising=False)
    try:
        for role, variable in (("doctor_one", "MLFLOW_BACKEND_STORE_URI"), ("doctor_two", "CIFAR_STUDIES_URL")):
            sql(f"CREATE ROLE {role} LOGIN PASSWORD 'word-of-{role}'")
            sql(f"CREATE DATABASE {role} OWNER {role}")
            sql(f"REVOKE CONNECT ON DATABASE {role} FROM PUBLIC")
            address = urlsplit(url).netloc.rpartition("@")[2]
            monkeypatch.setenv(variable, f"postgresql://{role}:word-of-{role}@{address}/{role}")
        for database in databases:
            sql(f"REVOKE CONNECT ON DATABASE {database} FROM PUBLIC")
        yield sql
    finally:
        for database in databases:
            sql(f"GRANT CONNECT ON DATABASE {database} TO PUBLIC")
        for role in ("doctor_one", "doctor_two"):
            sql(f"DROP DATABASE IF EXISTS {role}")
            sql(f"DROP ROLE IF EXISTS {role}")
        connection.close()
