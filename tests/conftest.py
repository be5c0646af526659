"""The embedded stack for tests: started once per session, in a temporary folder, on free ports."""

import io
import json
import os
import tempfile
import uuid
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np
import pytest
from filelock import FileLock
from hypothesis import settings
from PIL import Image
from xdist.scheduler import LoadFileScheduling

from benchmarks.temporary_stack import new_home, remove_home, temporary_home
from cifar_tasks.cli.dag_run import DagRun, trigger
from cifar_tasks.deployment import stack as embedded
from cifar_tasks.deployment.airflow_api import airflow as logged_in
from cifar_tasks.deployment.dag_ids import PROMOTION_DAG
from cifar_tasks.deployment.stack.environment import overlay
from cifar_tasks.storage.s3 import S3Store
from tests.waiting import wait_for_success

if TYPE_CHECKING:
    from airflow_client.client import ApiClient
    from mlflow import MlflowClient

# Property tests try the same examples in every run.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")

# Tests run in parallel, beside the stack: with more threads than cores a training takes minutes instead of seconds.
# OpenMP reads these variables when torch is imported.
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(autouse=True)
def patience_with_mlflow() -> Iterator[None]:
    """A command shortens it for its own process, and some tests run commands in theirs."""
    names = "MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
    before = {name: os.environ[name] for name in names if name in os.environ}
    yield
    for name in names:
        os.environ.pop(name, None)
    os.environ.update(before)


COLOURS = {"blue": (40, 60, 200), "green": (40, 180, 60), "red": (200, 50, 40)}

WITH_AIRFLOW = (
    "tests/browser/",
    "tests/dags/test_dag_run.py",
    "tests/faults/test_celery_workers.py",
    "tests/faults/test_commands.py",
    "tests/faults/test_approval_page.py",
    "tests/faults/test_backfill.py",
    "tests/faults/test_marked_runs.py",
    "tests/faults/test_models_page_forms.py",
    "tests/faults/test_models_page_names.py",
    "tests/faults/test_models_page_views.py",
    "tests/faults/test_promotion_run.py",
    "tests/faults/test_running_stack.py",
    "tests/integration/test_doctor_airflow.py",
    "tests/integration/test_stack.py",
)


WITH_MODEL = (
    "tests/unit/steps/test_evaluate.py",
    "tests/unit/steps/test_prepare.py",
    "tests/unit/steps/test_promote.py",
    "tests/unit/steps/test_register.py",
    "tests/unit/steps/test_rollback.py",
)


class SharingScheduler(LoadFileScheduling):
    """One worker of `pytest -n` runs all that needs Airflow, so that it is started once, and one all that needs the
    model of the unit tests, so that it is trained once. Others take file by file."""

    def _split_scope(self, nodeid: str) -> str:
        for scope, files in (("stack", WITH_AIRFLOW), ("model", WITH_MODEL)):
            if nodeid.startswith(files):
                return scope
        return super()._split_scope(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> SharingScheduler:
    # xdist's own groups (`--dist loadgroup`) have no effect with pytest 9.2.
    return SharingScheduler(config, log)


@dataclass(frozen=True)
class RunningStack:
    home: Path
    environment: dict[str, str]
    """What its services and clients read. Holds secrets."""

    @property
    def airflow_url(self) -> str:
        return self.environment["CIFAR_AIRFLOW_URL"]

    @property
    def mlflow_url(self) -> str:
        return self.environment["MLFLOW_TRACKING_URI"]

    @property
    def s3_url(self) -> str:
        return self.environment["AWS_ENDPOINT_URL_S3"]


@pytest.fixture(scope="session", autouse=True)
def settings_of_nobody(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests see the default settings, whatever the developer has set, and not the developer's stack."""
    with patch.dict(os.environ):
        for name in [name for name in os.environ if name.startswith(("CIFAR_", "WANDB_"))]:
            del os.environ[name]
        os.environ["CIFAR_HOME"] = str(tmp_path_factory.mktemp("home"))
        yield


@pytest.fixture(autouse=True)
def own_environment() -> Iterator[None]:
    """What a test, or the code it calls, changes in this process's environment ends with the test."""
    with patch.dict(os.environ):
        yield


@pytest.fixture(scope="session")
def stack() -> Iterator[RunningStack]:
    """The whole stack, Airflow included."""
    with temporary_home() as home:
        embedded.up(home, report=print)
        yield RunningStack(home, embedded.environment(home))


@pytest.fixture(scope="session")
def backend(testrun_uid: str) -> Iterator[RunningStack]:
    """Storage and MLflow without Airflow, for all workers of `pytest -n`: the first starts it, the last stops it."""
    note = Path(tempfile.gettempdir(), f"cifar-tests-{testrun_uid}.json")
    one_at_a_time = FileLock(f"{note}.lock")
    with one_at_a_time:
        shared = json.loads(note.read_text()) if note.exists() else {"home": str(new_home()), "users": 0}
        home = Path(shared["home"])
        embedded.up(home, report=print, without=("airflow",))
        note.write_text(json.dumps({"home": str(home), "users": shared["users"] + 1}))
    yield RunningStack(home, embedded.environment(home))
    with one_at_a_time:
        users = json.loads(note.read_text())["users"] - 1
        note.write_text(json.dumps({"home": str(home), "users": users}))
        if users == 0:
            remove_home(home)
            for file in (note, Path(one_at_a_time.lock_file)):
                file.unlink()


@pytest.fixture
def own_home() -> Iterator[Path]:
    """Home of a stack that the test starts itself, and may break."""
    with temporary_home() as home:
        yield home


@pytest.fixture
def connected(stack: RunningStack, monkeypatch: pytest.MonkeyPatch) -> RunningStack:
    """The session's stack, with this process as one of its clients."""
    connect(monkeypatch, stack.environment)
    return stack


@pytest.fixture
def tracked(backend: RunningStack, monkeypatch: pytest.MonkeyPatch) -> RunningStack:
    """Storage and MLflow, with this process as one of their clients."""
    connect(monkeypatch, backend.environment)
    return backend


@pytest.fixture
def client(tracked: RunningStack) -> "MlflowClient":
    """Of the MLflow in `tracked`."""
    from cifar_tasks.tracking import runs

    return runs.mlflow_client()


@pytest.fixture
def s3_store(tracked: RunningStack) -> Iterator[S3Store]:
    """A store on a bucket of its own."""
    from cifar_tasks.storage.s3 import s3_client

    client, bucket = s3_client(), f"test-{uuid.uuid4().hex[:12]}"
    client.create_bucket(Bucket=bucket)
    store = S3Store(bucket, client)
    yield store
    for key in list(store.keys("")):
        store.delete(key)
    client.delete_bucket(Bucket=bucket)


def connect(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    wanted = overlay(os.environ, environment)
    for name in os.environ.keys() - wanted.keys():
        monkeypatch.delenv(name)
    for name, value in wanted.items():
        monkeypatch.setenv(name, value)


def picture(colour: tuple[int, int, int], random: np.random.Generator) -> bytes:
    pixels = np.clip(np.array(colour) + random.normal(0, 30, (32, 32, 3)), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of coloured noise: learnt in a second, and not to be mistaken for real data."""
    path = tmp_path_factory.mktemp("data") / "colours.zip"
    random = np.random.default_rng(1)
    with zipfile.ZipFile(path, "w") as archive:
        for name, colour in COLOURS.items():
            for split, count in (("train", 60), ("test", 20)):
                for number in range(count):
                    archive.writestr(f"{split}/{name}/{number:04}.png", picture(colour, random))
    return path


@pytest.fixture(scope="session")
def airflow(stack: RunningStack) -> Iterator["ApiClient"]:
    """Airflow's public API, logged in."""
    with logged_in(stack.airflow_url, embedded.AIRFLOW_USER, embedded.airflow_password(stack.home)) as client:
        yield client


@pytest.fixture(scope="session")
def dag_run(airflow: "ApiClient", pictures: Path) -> DagRun:
    """The main job, whole: both models, one of them tuned, and the promotion, through Airflow. Never changed."""
    models = {"models": ["cnn", "resnet50"], "pretrained": "none"}
    search = {"tune": ["cnn"], "trials": 3, "search_workers": 2}
    run = trigger(airflow, {"source": str(pictures), **models, "epochs": 1, **search})
    wait_for_success(run, 400)
    wait_for_success(DagRun(airflow, run.run_id, PROMOTION_DAG), 100)  # within the time that a test has
    return run
