"""The probes on PostgreSQL, S3 and MLflow as they run, and with something wrong."""

import os
import subprocess
import sys
from importlib.metadata import version

import pytest

from cifar_tasks.deployment import probes
from cifar_tasks.deployment.probes import ProbeError
from cifar_tasks.settings import PROJECT
from cifar_tasks.storage.s3 import S3Store
from tests.conftest import RunningStack

NOBODY = "127.0.0.1:1"


def database(backend: RunningStack) -> str:
    return backend.environment["MLFLOW_BACKEND_STORE_URI"]


def test_each_service_tells_its_version(backend: RunningStack) -> None:
    assert probes.postgres(database(backend)) // 10_000 == 18
    assert "SeaweedFS" in probes.s3("cifar", "mlflow", environment=backend.environment)
    assert probes.mlflow(backend.mlflow_url) == version("mlflow-skinny")


def test_an_object_is_written_into_each_database_of_seaweedfs(backend: RunningStack, s3_store: S3Store) -> None:
    def written() -> dict[str, int]:
        databases = (backend.home / "s3" / "filerldb2").iterdir()
        return {each.name: sum(file.stat().st_size for file in each.glob("*.log")) for each in databases}

    before = written()
    probes.seaweedfs_writes(s3_store.bucket, backend.environment)
    after = written()
    assert len(after) == probes.DATABASES
    assert [name for name in after if after[name] <= before[name]] == []
    assert list(s3_store.keys("")) == []


def test_a_wrong_password_of_the_database_is_the_reason(backend: RunningStack) -> None:
    with pytest.raises(ProbeError, match=r'^password authentication failed for user "cifar"$') as refused:
        probes.postgres(database(backend).replace("://cifar:", "://cifar:x"))
    assert refused.value.code == "FATAL"


@pytest.mark.parametrize(
    ("bucket", "wrong", "code"),
    [("missing", {}, "NoSuchBucket"), ("cifar", {"AWS_SECRET_ACCESS_KEY": "guessed"}, "SignatureDoesNotMatch")],
)
def test_what_s3_refuses_is_the_reason(backend: RunningStack, bucket: str, wrong: dict[str, str], code: str) -> None:
    with pytest.raises(ProbeError, match=code) as refused:
        probes.s3("mlflow", bucket, environment={**backend.environment, **wrong})
    assert refused.value.code == code


def test_a_service_that_is_not_there_does_not_answer(backend: RunningStack) -> None:
    elsewhere = {**backend.environment, "AWS_ENDPOINT_URL_S3": f"http://{NOBODY}"}
    for probe in (
        lambda: probes.s3(environment=elsewhere),
        lambda: probes.postgres(f"postgresql://cifar:x@{NOBODY}/mlflow"),
        lambda: probes.mlflow(f"http://{NOBODY}"),
    ):
        with pytest.raises(ProbeError) as gone:
            probe()
        assert gone.value.code is None


def test_a_proxy_of_the_user_is_not_asked(backend: RunningStack, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://{NOBODY}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    assert probes.s3(environment=backend.environment)
    assert probes.mlflow(backend.mlflow_url)


def test_the_command_exits_with_the_reason(tracked: RunningStack) -> None:
    def health(**changed: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "cifar_tasks.deployment.probes", "storage"]
        return subprocess.run(
            command, cwd=PROJECT, env={**os.environ, **changed}, capture_output=True, text=True, timeout=60
        )

    assert health().returncode == 0
    wrong = health(AWS_SECRET_ACCESS_KEY="guessed")
    assert (wrong.returncode, wrong.stderr) == (1, "storage: refuses the request: SignatureDoesNotMatch\n")
