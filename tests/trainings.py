"""Small trainings for the tests of the steps, and a way to run one where it can be killed."""

import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from mlflow import MlflowClient
from pydantic import BaseModel

from cifar_tasks.config import with_values
from cifar_tasks.models import get_model
from cifar_tasks.settings import Settings
from cifar_tasks.steps.payloads import PreparedData, RunRequest, TrainedModel, TrainPlan, WorkflowRun
from cifar_tasks.steps.prepare import prepare_data
from cifar_tasks.steps.process import run_step
from cifar_tasks.storage.lease import acquire_lease
from cifar_tasks.storage.lease_terms import LeaseTerms
from cifar_tasks.storage.s3 import S3Store
from cifar_tasks.tracking import runs

SMALL = {"epochs": 3, "batch_size": 32, "learning_rate": 0.02}
TRAIN = "cifar_tasks.steps.train:train_model"


def workflow(name: str) -> WorkflowRun:
    return WorkflowRun(id=f"test/{name}", name=name, url=f"http://airflow.example/{name}")


def request(source: Path | str, **changes: Any) -> RunRequest:
    fields = {"models": ["cnn"], "profile": "demo", "registered_model": "tests", "overrides": SMALL, "force": True}
    return RunRequest(**{"source": str(source), **fields, **changes})


def prepared(source: Path | str, name: str, **changes: Any) -> PreparedData:
    """The dataset of a workflow run of this name."""
    return prepare_data(request(source, **changes), workflow(name))


def train_plan(data: PreparedData, model: str = "cnn", **overrides: Any) -> TrainPlan:
    """A small training; `overrides` by the names of `config.flat`."""
    config = with_values(get_model(model).config("demo"), {**SMALL, **overrides})
    return TrainPlan(data=data, config=config, fixed=[])


def as_json(payload: BaseModel) -> Any:
    """As Airflow hands it to a step."""
    return payload.model_dump(mode="json")


def child_run(client: MlflowClient, workflow_id: str, model: str = "cnn") -> list[Any]:
    experiment = runs.experiment_id(client, Settings().experiment)
    return list(runs.find_runs(client, experiment, {runs.WORKFLOW: workflow_id, runs.MODEL: model}))


SHORT_TERMS = LeaseTerms(ttl=16, renew_interval=0.5, trusted_for=13, poll_interval=0.3)
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


def _hang_before_writing(ending: str) -> None:
    """The first object whose key ends like this is never written."""
    put = S3Store.put

    def hang(store: S3Store, key: str, data: bytes) -> Any:
        if key.endswith(ending):
            print("hanging", flush=True)  # noqa: T201
            time.sleep(600)
        return put(store, key, data)

    S3Store.put = hang  # type: ignore[method-assign]


def train_and_hang_while_writing_a_checkpoint(plan: TrainPlan) -> None:
    """A training whose second checkpoint never gets its manifest."""
    _hang_before_writing("epoch-0002.json")
    from cifar_tasks.steps.train import train_model

    train_model(plan)


def train_and_hang_before_the_model_has_its_digest(plan: TrainPlan) -> None:
    """A training whose model is whole in MLflow, and which nothing says so of."""

    def hang(*arguments: Any) -> None:
        print("hanging", flush=True)  # noqa: T201
        time.sleep(600)

    MlflowClient.set_logged_model_tags = hang  # type: ignore[method-assign]
    from cifar_tasks.steps.train import train_model

    train_model(plan)


def train_on_short_terms(plan: TrainPlan) -> TrainedModel:
    """A training that others take over soon after it died."""
    from cifar_tasks.steps import train

    train.acquire_lease = partial(acquire_lease, terms=SHORT_TERMS)  # type: ignore[assignment]
    return train.train_model(plan)


def evaluate_and_hang_before_the_evaluation_is_written(trained: TrainedModel) -> None:
    """Probabilities are stored, what names them is not."""
    _hang_before_writing("/evaluation.json")
    from cifar_tasks.steps.evaluate import evaluate_model

    evaluate_model(trained)
