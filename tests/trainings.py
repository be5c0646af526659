"""Small trainings for the tests of the steps, and a way to run one where it can be killed."""

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import psutil
from mlflow import MlflowClient

from cifar_tasks.config import configure
from cifar_tasks.settings import Settings
from cifar_tasks.steps.process import run_step
from cifar_tasks.storage.lease import LeaseTerms, acquire_lease
from cifar_tasks.storage.s3 import S3Store
from cifar_tasks.tracking import runs

SMALL = {"epochs": 3, "batch_size": 32, "learning_rate": 0.02}
TRAIN = "cifar_tasks.steps.train:train_model"


def workflow(name: str) -> dict[str, Any]:
    return {"id": f"test/{name}", "name": name, "url": f"http://airflow.example/{name}"}


def train_config(model: str = "cnn", **changes: Any) -> dict[str, Any]:
    return configure(model, "demo", {**SMALL, **changes}).__dict__.copy()


def child_run(client: MlflowClient, workflow_id: str, model: str = "cnn") -> list[Any]:
    experiment = runs.experiment_id(client, Settings().experiment)
    return list(runs.find_runs(client, experiment, {runs.WORKFLOW: workflow_id, runs.MODEL: model}))


SHORT_TERMS = LeaseTerms(ttl=8, renew_interval=0.5, trusted_for=6, poll_interval=0.3)
"""Of leases; S3 tells ages in whole seconds."""


class Background(threading.Thread):
    """A step in a process of its own, which the test may kill."""

    def __init__(self, step: str, **arguments: Any) -> None:
        super().__init__()
        self.step, self.arguments = step, arguments
        self.result: Any = None
        self.error: BaseException | None = None
        self.lines: list[str] = []
        self.start()

    def run(self) -> None:
        try:
            self.result = run_step(self.step, on_line=self.lines.append, **self.arguments)
        except BaseException as error:
            self.error = error

    def child(self) -> psutil.Process:
        return next(p for p in psutil.Process().children() if self.step in p.cmdline())


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def train_and_hang_while_writing_a_checkpoint(**arguments: Any) -> None:
    """A training whose second checkpoint never gets its manifest."""
    put = S3Store.put

    def hang(store: S3Store, key: str, data: bytes) -> Any:
        if key.endswith("epoch-0002.json"):
            print("hanging", flush=True)  # noqa: T201
            time.sleep(600)
        return put(store, key, data)

    S3Store.put = hang  # type: ignore[method-assign]
    from cifar_tasks.steps.train import train_model

    train_model(**arguments)


def train_on_short_terms(**arguments: Any) -> Any:
    """A training that others take over soon after it died."""
    from cifar_tasks.steps import train

    train.acquire_lease = partial(acquire_lease, terms=SHORT_TERMS)  # type: ignore[assignment]
    return train.train_model(**arguments)
