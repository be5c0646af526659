"""What the containers of compose do with S3, on a SeaweedFS of their own: the backup, the check of shared secrets."""

import io
import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from benchmarks.temporary_stack import temporary_home
from cifar_tasks.deployment import stack as embedded
from cifar_tasks.deployment.compose import BUCKETS
from cifar_tasks.deployment.compose.init import record_secrets
from cifar_tasks.settings import PROJECT
from cifar_tasks.storage.s3 import S3Store, s3_client
from tests.conftest import connect

SECRETS = {"AIRFLOW__API_AUTH__JWT_SECRET": "signs requests", "AIRFLOW__CORE__FERNET_KEY": "opens connections"}
Objects = dict[tuple[str, str], tuple[bytes, str, dict[str, str]]]
"""(bucket, key) → content, content type, metadata."""


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    with temporary_home() as home:
        embedded.up(home, print, without=("airflow", "mlflow", "postgres"))
        variables = embedded.environment(home)
        s3_client(environment=variables).create_bucket(Bucket="logs")
        yield variables


@pytest.fixture
def s3(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Empty buckets, with this process as a client."""
    connect(monkeypatch, environment)
    client = s3_client()
    yield client
    for bucket, key in objects(client):
        client.delete_object(Bucket=bucket, Key=key)


def objects(s3: Any) -> Objects:
    found = {}
    for bucket in BUCKETS:
        for entry in s3.list_objects_v2(Bucket=bucket).get("Contents", []):
            each = s3.get_object(Bucket=bucket, Key=entry["Key"])
            found[bucket, entry["Key"]] = each["Body"].read(), each["ContentType"], each["Metadata"]
    return found


def backup(*words: str, stdin: bytes = b"", module: str = "backup") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", f"cifar_tasks.deployment.compose.{module}", *words]
    return subprocess.run(command, cwd=PROJECT, input=stdin, capture_output=True, timeout=60, check=False)


def pulled(until: float | None = None) -> bytes:
    done = backup("pull", str(until or time.time() + 60))
    assert done.returncode == 0, done.stderr
    return done.stdout


def tar_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def test_the_buckets_come_back_as_they_were_and_hold_nothing_else(s3: Any) -> None:
    s3.put_object(Bucket="cifar", Key="a/b", Body=b"x" * 3_000_000, ContentType="image/png", Metadata={"sha256": "1"})
    s3.put_object(Bucket="mlflow", Key="model", Body=b"weights")
    s3.put_object(Bucket="logs", Key="empty", Body=b"")
    before, copied = objects(s3), pulled()
    s3.put_object(Bucket="mlflow", Key="model", Body=b"changed")
    s3.put_object(Bucket="cifar", Key="later", Body=b"new")
    s3.delete_object(Bucket="logs", Key="empty")
    s3.delete_bucket(Bucket="logs")

    done = backup("push", stdin=copied)

    assert done.returncode == 0, done.stderr
    assert b"3 objects, 3.0 MB; 1 others deleted" in done.stderr
    assert objects(s3) == before
    assert backup("count").stdout == b"3\n"


def test_results_of_steps_that_are_newer_than_the_databases_are_left_out(s3: Any) -> None:
    for bucket in BUCKETS:
        for key in ("runs/1/trained.json", "promotions/model/000001.json"):
            s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    copied = pulled(until=time.time() - 60)
    assert backup("push", stdin=copied).returncode == 0
    assert {bucket for bucket, _ in objects(s3)} == {"mlflow", "logs"}


def test_what_is_written_again_during_a_backup_is_in_it(s3: Any) -> None:
    """Images of the version in use are, under the same key, when the next version is prepared."""
    key = "lines/products/shards/0123"
    s3.put_object(Bucket="cifar", Key=key, Body=b"images")
    copied = pulled(until=time.time() - 60)
    assert backup("push", stdin=copied).returncode == 0
    assert ("cifar", key) in objects(s3)


@pytest.fixture
def files(s3: Any) -> dict[str, bytes]:
    """The files of a backup with one object, the manifest among them."""
    s3.put_object(Bucket="cifar", Key="kept", Body=b"content")
    dumps = {f"{name}.dump": name.encode() for name in ("airflow", "mlflow", "optuna")}
    return sealed({**dumps, "objects.tar": pulled()})


def sealed(files: dict[str, bytes]) -> dict[str, bytes]:
    done = backup("seal", "began=today", "rows.mlflow.runs=3", "rows.airflow.dag_run=2", stdin=tar_of(files))
    assert done.returncode == 0, done.stderr
    return {"manifest.json": done.stdout, **files}


def changed(files: dict[str, bytes], **values: object) -> dict[str, bytes]:
    return {**files, "manifest.json": json.dumps({**json.loads(files["manifest.json"]), **values}).encode()}


def refusal(files: dict[str, bytes]) -> str:
    done = backup("verify", stdin=tar_of(files))
    assert done.returncode == 1
    assert done.stdout == b""
    return done.stderr.decode()


def test_a_backup_that_is_whole_tells_the_rows_that_tables_must_have(files: dict[str, bytes]) -> None:
    done = backup("verify", stdin=tar_of(files))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [b"mlflow runs 3", b"airflow dag_run 2"]
    assert b"cifar: 1 objects of 0.0 MB" in done.stderr


def test_a_backup_of_newer_packages_is_refused_and_one_of_older_ones_is_not(files: dict[str, bytes]) -> None:
    assert f"the backup is of optuna 99.0, whose tables {version('optuna')} here" in refusal(
        changed(files, packages={"optuna": "99.0"})
    )
    assert backup("verify", stdin=tar_of(changed(files, packages={"optuna": "1.0"}))).returncode == 0


def test_the_manifest_names_the_versions_of_the_packages_that_own_the_tables(files: dict[str, bytes]) -> None:
    packages = json.loads(files["manifest.json"])["packages"]
    assert packages == {name: version(name) for name in ("apache-airflow", "mlflow-skinny", "optuna")}


def test_a_backup_that_is_damaged_incomplete_or_of_another_format_is_refused(files: dict[str, bytes]) -> None:
    assert "mlflow.dump is damaged" in refusal({**files, "mlflow.dump": b"mlflox"})
    assert "optuna.dump is missing" in refusal({name: each for name, each in files.items() if name != "optuna.dump"})
    assert "manifest.json is missing" in refusal({name: each for name, each in files.items() if name.endswith("dump")})
    assert "has format 2, this version reads 1" in refusal(changed(files, format=2))
    assert "objects.tar" in refusal({**files, "objects.tar": files["objects.tar"][:1000]})


def test_a_backup_without_one_of_its_files_or_with_fewer_objects_is_not_sealed(files: dict[str, bytes]) -> None:
    del files["manifest.json"]
    fewer = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(files["objects.tar"])) as tar, tarfile.open(fileobj=fewer, mode="w") as copy:
        for member in tar.getmembers()[1:]:
            copy.addfile(member, tar.extractfile(member))
    for incomplete, reason in (
        ({name: each for name, each in files.items() if name != "optuna.dump"}, b"optuna.dump: not written"),
        ({**files, "objects.tar": fewer.getvalue()}, b"objects.tar is not complete"),
    ):
        done = backup("seal", "began=today", stdin=tar_of(incomplete))
        assert done.returncode == 1
        assert reason in done.stderr


def test_an_object_that_is_damaged_in_storage_is_named_when_the_backup_is_sealed(s3: Any) -> None:
    S3Store("cifar").put("good", b"content")
    s3.put_object(Bucket="cifar", Key="bad", Body=b"other", Metadata={"sha256": "0" * 64})
    dumps = {f"{name}.dump": b"" for name in ("airflow", "mlflow", "optuna")}
    done = backup("seal", "began=today", stdin=tar_of({**dumps, "objects.tar": pulled()}))
    assert done.returncode == 0
    assert [line for line in done.stderr.decode().splitlines() if line.startswith("warning")] == [
        "warning: s3://cifar/bad is damaged in storage, and therefore in the backup"
    ]


@pytest.fixture
def recorded(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    record_secrets()


def test_a_component_with_the_secrets_of_the_deployment_starts(recorded: None, tmp_path: Path) -> None:
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = backup("version", module="airflow_component")
    assert done.returncode == 0, done.stderr
    assert version("apache-airflow") in done.stdout.decode()


@pytest.mark.parametrize("name", sorted(SECRETS))
def test_a_component_with_another_secret_names_it_and_does_not_start(
    recorded: None, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "somebody-elses")
    done = backup("version", module="airflow_component")
    assert done.returncode == 1
    assert done.stdout == b""
    assert f"Not as in this deployment: {name} (differs)".encode() in done.stderr
    assert b"somebody-elses" not in done.stderr


def test_a_component_before_init_says_so_in_one_line_and_does_not_start(s3: Any) -> None:
    done = backup("version", module="airflow_component")
    assert done.returncode == 1
    assert done.stderr.decode().splitlines() == ["init has not recorded the secrets in S3: docker compose up -d init"]
