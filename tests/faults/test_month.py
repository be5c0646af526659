"""A month of a dataset line in fast motion, on a stack of its own: what Airflow, MLflow and S3 say of each delivery."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from airflow_client.client.api.asset_api import AssetApi
from airflow_client.client.api.dag_run_api import DagRunApi
from airflow_client.client.models.create_asset_events_body import CreateAssetEventsBody
from airflow_client.client.models.dag_run_response import DAGRunResponse

from cifar_tasks.cli.dag_run import DAG, ENDED, DagRun, trigger
from cifar_tasks.data.lines.line_log import LineEntry, read_line_log
from cifar_tasks.deployment import stack as embedded
from cifar_tasks.deployment.airflow_api import airflow as logged_in
from cifar_tasks.settings import Settings
from cifar_tasks.storage.promotion_log import read_log
from cifar_tasks.storage.s3 import S3Store
from cifar_tasks.tracking import model_registry, runs
from tests.conftest import COLOURS, connect, picture
from tests.waiting import wait_until

if TYPE_CHECKING:
    from airflow_client.client import ApiClient
    from mlflow import MlflowClient

DATASET_DAG = "cifar10_dataset"
LINE, MODEL = "colours", "month"
PREFIX, MARKER = "labels/colours", "_COMPLETE"
SETTINGS = {
    "DATASET_LINES": json.dumps({LINE: {"source": f"s3://cifar/{PREFIX}", "image_size": 16, "marker": MARKER}}),
    "SOURCE": f"line:{LINE}",
    "MODELS": "cnn",
    # Half a year away. Airflow makes the run of a new schedule at once if its last date is not long ago.
    "SCHEDULE": f"0 0 1 {(datetime.now(UTC).month + 5) % 12 + 1} *",
    "REGISTERED_MODEL": MODEL,
}
SECONDS = 600
"""That a DAG run may take."""


@dataclass
class Month:
    airflow: "ApiClient"
    mlflow: "MlflowClient"
    store: S3Store
    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(1))
    delivered: int = 0

    def upload(self, count: int, split: str = "train") -> list[str]:
        """New pictures of each class; nobody knows yet whether more follow."""
        keys = []
        for name, colour in COLOURS.items():
            for _ in range(count):
                self.delivered += 1
                keys.append(f"{PREFIX}/{split}/{name}/{self.delivered:05}.png")
                self.store.put(keys[-1], picture(colour, self.random))
        return keys

    def complete(self) -> None:
        self.store.put(f"{PREFIX}/{MARKER}", f"{self.delivered}".encode())

    def check(self) -> DagRun:
        """Start a check of the source."""
        return trigger(self.airflow, {"line": LINE}, DATASET_DAG)

    def ended(self, run: DagRun) -> dict[str, str]:
        """States of its tasks, once it has succeeded."""
        wait_until(lambda: run.state() in ENDED, SECONDS)
        states = {str(task.task_id): task.state.value for task in run.tasks() if task.state}
        assert run.state() == "success", states
        return states

    def deliver(self) -> LineEntry:
        """Check the source; the entry that this has led to."""
        self.complete()
        states = self.ended(self.check())
        assert states["accept"] == "success", states
        return self.log()[-1]

    def log(self) -> tuple[LineEntry, ...]:
        return read_line_log(self.store, LINE).entries

    def trainings(self, kind: str = "asset_triggered") -> list[DAGRunResponse]:
        """Runs of the training DAG that events have started, in order."""
        found = DagRunApi(self.airflow).get_dag_runs(DAG, order_by=["run_after"]).dag_runs
        return [run for run in found if run.run_type.value == kind]

    def trained(self, count: int) -> dict[str, str]:
        """States of the tasks of the last of so many runs that events have started; there are no more."""
        wait_until(lambda: len(self.trainings()) >= count, SECONDS)
        states = self.ended(DagRun(self.airflow, str(self.trainings()[count - 1].dag_run_id)))
        assert len(self.trainings()) == count
        return states

    def decided(self, count: int) -> list[str]:
        """Actions of the promotion log, once it has so many entries."""
        wait_until(lambda: len(read_log(self.store, MODEL).entries) >= count, SECONDS)
        return [entry.action for entry in read_log(self.store, MODEL).entries]

    def note(self, run: DagRun) -> str:
        return DagRunApi(self.airflow).get_dag_run(run.dag_id, run.run_id).note or ""

    def datasets(self) -> list[str]:
        """Digests that the registered versions were trained on, by version."""
        versions = self.mlflow.search_model_versions(f"name = '{MODEL}'")
        return [v.tags["cifar.dataset"] for v in sorted(versions, key=lambda v: int(v.version))]

    def parents(self) -> int:
        """MLflow runs of workflow runs."""
        experiment = runs.experiment_id(self.mlflow, Settings().experiment)
        return len(runs.find_runs(self.mlflow, experiment, {runs.MODEL: "all"}))

    def champion(self) -> int:
        version = model_registry.version_with_alias(self.mlflow, MODEL, "champion")
        return int(version.version) if version else 0


@pytest.fixture
def month(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Month]:
    for name, value in SETTINGS.items():
        monkeypatch.setenv(f"CIFAR_{name}", value)
    embedded.up(own_home, print)
    connect(monkeypatch, embedded.environment(own_home))
    url = embedded.environment(own_home)["CIFAR_AIRFLOW_URL"]
    with logged_in(url, embedded.AIRFLOW_USER, embedded.airflow_password(own_home)) as client:
        yield Month(client, runs.mlflow_client(), S3Store(Settings().bucket))


@pytest.mark.timeout(1800)
def test_a_month_of_deliveries(month: Month) -> None:
    first_data(month)
    nothing_new(month)
    new_images_and_events_while_they_train(month)


def first_data(month: Month) -> None:
    month.upload(40)
    month.upload(10, "test")
    entry = month.deliver()
    assert (entry.number, entry.kind, entry.diff.new) == (1, "accepted", 120)
    states = month.trained(1)
    assert (states["prepare"], states["report"], states["promote"]) == ("success", "success", "success")
    assert month.decided(1) == ["promote"]
    wait_until(lambda: month.champion() == 1)
    assert month.datasets() == [entry.dataset.digest]
    (version,) = month.mlflow.search_model_versions(f"name = '{MODEL}'")
    assert (version.tags["cifar.line"], version.tags["cifar.line_entry"]) == (LINE, "1")
    assert f"/dags/{DATASET_DAG}/runs/" in version.tags["cifar.line_url"]


def nothing_new(month: Month) -> None:
    """Neither the data nor the training: both are skipped, and leave nothing."""
    states = month.ended(month.check())
    assert states["check_source"] == states["prepare_version"] == states["accept"] == "skipped"
    parents = month.parents()
    by_hand = trigger(month.airflow, {})
    assert set(month.ended(by_hand).values()) == {"skipped"}
    assert f"version 1 (cnn) of {MODEL}: same dataset version" in month.note(by_hand)
    assert (len(month.log()), len(month.trainings()), month.parents()) == (1, 1, parents)
    assert len(read_log(month.store, MODEL).entries) == 1


def new_images_and_events_while_they_train(month: Month) -> None:
    """Three events during a run start one further run, which finds nothing to train."""
    month.upload(20)
    entry = month.deliver()
    assert (entry.kind, entry.diff.new, entry.diff.gone) == ("accepted", 60, 0)
    wait_until(lambda: len(month.trainings()) == 2, SECONDS)
    assert month.trainings()[1].state.value not in ENDED
    assets = AssetApi(month.airflow)
    (asset,) = assets.get_assets(name_pattern=f"dataset_line_{LINE}").assets
    for _ in range(3):
        assets.create_asset_event(CreateAssetEventsBody(asset_id=asset.id, extra={"line": LINE}))
    assert set(month.trained(3).values()) == {"skipped"}
    assert month.trainings()[1].state.value == "success"
    assert month.datasets() == [each.dataset.digest for each in month.log()]
    assert month.decided(2)[1] in ("promote", "keep")
