"""A line of coloured pictures whose versions Airflow trains on, and what MLflow and the promotion log say of them."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING

import numpy as np
from airflow_client.client.api.dag_run_api import DagRunApi
from airflow_client.client.models.dag_run_response import DAGRunResponse

from cifar_tasks.cli.dag_run import DagRun
from cifar_tasks.data.lines.line_log import LineEntry
from cifar_tasks.deployment.dag_ids import TRAINING_DAG
from cifar_tasks.settings import Settings
from cifar_tasks.storage.promotion_log import Entry, read_log
from cifar_tasks.tracking import model_registry, runs
from tests.conftest import COLOURS, picture
from tests.waiting import wait_until
from tests.watched_line import RUN_SECONDS, WatchedLine

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

LINE, MODEL, PREFIX = "colours", "month", "labels/colours"


@dataclass(frozen=True)
class Month(WatchedLine):
    mlflow: "MlflowClient"
    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(1))
    numbers: Iterator[int] = field(default_factory=count)

    def upload(self, each: int, split: str = "train") -> list[str]:
        """New pictures, so many of each class; nobody knows yet whether more follow."""
        names = [f"{split}/{colour}/{next(self.numbers):05}.png" for colour in COLOURS for _ in range(each)]
        for name in names:
            self.put(name, picture(COLOURS[name.split("/")[1]], self.random))
        return names

    def accepted(self) -> LineEntry:
        """Check a complete delivery; the entry that this has led to."""
        self.complete()
        states = self.ended(self.check())
        assert (states["accept"], states["announce"]) == ("success", "success"), states
        return self.log().entries[-1]

    def quarantined(self) -> tuple[DagRun, LineEntry]:
        self.complete()
        run, entry = self.waiting_for_a_person(), self.log().entries[-1]
        assert entry.kind == "quarantined"
        states = self.states(run)
        assert (states["validate"], states["accept"], states["quarantine"]) == ("success", "skipped", "success")
        assert all(reason.split(":")[0] in self.note(run) for reason in entry.reasons)
        (report,) = self.reports(entry)
        assert report.data.tags["cifar.quality"] == "failed"
        for ending in ("json", "html"):
            assert self.store.exists(f"lines/{LINE}/reports/{entry.dataset.digest[:16]}.{ending}")
        return run, entry

    def reports(self, entry: LineEntry) -> "list[Run]":
        """MLflow runs with the checks of this version."""
        experiment = runs.experiment_id(self.mlflow, f"{Settings().experiment}-lines")
        return list(runs.find_runs(self.mlflow, experiment, {"cifar.dataset": entry.dataset.digest}))

    def trainings(self) -> list[DAGRunResponse]:
        """Runs of the training DAG that events have started, in order."""
        found = DagRunApi(self.client).get_dag_runs(TRAINING_DAG, order_by=["run_after"], limit=100).dag_runs
        return [run for run in found if run.run_type.value == "asset_triggered"]

    def training(self, number: int) -> DagRun:
        wait_until(lambda: len(self.trainings()) >= number, RUN_SECONDS)
        return DagRun(self.client, str(self.trainings()[number - 1].dag_run_id))

    def sources(self, run: DagRun) -> list[int]:
        """Entries of the log of the line whose events have started a training."""
        found = DagRunApi(self.client).get_upstream_asset_events(TRAINING_DAG, run.run_id).asset_events
        return [event.extra["entry"] for event in found]

    def decisions(self, at_least: int = 0) -> tuple[Entry, ...]:
        """Of the promotion log, once it has so many entries."""
        wait_until(lambda: len(read_log(self.store, MODEL).entries) >= at_least, RUN_SECONDS)
        return read_log(self.store, MODEL).entries

    def versions(self) -> "list[ModelVersion]":
        return sorted(self.mlflow.search_model_versions(f"name = '{MODEL}'"), key=lambda each: int(each.version))

    def champion(self) -> int:
        version = model_registry.version_with_alias(self.mlflow, MODEL, "champion")
        return int(version.version) if version else 0

    def counts(self) -> dict[str, int]:
        experiment = runs.experiment_id(self.mlflow, Settings().experiment)
        return {
            "entries": len(self.log().entries),
            "events": len(self.events()),
            "trainings": len(self.trainings()),
            "mlflow runs": len(runs.find_runs(self.mlflow, experiment, {runs.MODEL: "all"})),
            "versions": len(self.versions()),
            "decisions": len(self.decisions()),
        }

    def changed(self, before: dict[str, int]) -> dict[str, int]:
        return {name: n - before[name] for name, n in self.counts().items() if n != before[name]}
