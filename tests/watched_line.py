"""A dataset line that a real Airflow watches: what it delivers, what the DAG and the log of the line say of it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from airflow_client.client.api.asset_api import AssetApi
from airflow_client.client.api.dag_run_api import DagRunApi
from airflow_client.client.api.task_instance_api import TaskInstanceApi
from airflow_client.client.models.update_hitl_detail_payload import UpdateHITLDetailPayload

from cifar_tasks.cli.dag_run import DagRun, trigger
from cifar_tasks.cli.watch import AWAITING_INPUT
from cifar_tasks.data.lines.line_log import LineLog, read_line_log
from cifar_tasks.deployment import stack
from cifar_tasks.deployment.airflow_api import airflow, find_dag
from cifar_tasks.deployment.dag_ids import DATASET_DAG
from cifar_tasks.storage.s3 import S3Store
from tests.conftest import connect
from tests.waiting import wait_for_end, wait_until

if TYPE_CHECKING:
    from airflow_client.client import ApiClient

MARKER = "_COMPLETE"
RUN_SECONDS = 600.0
"""That a DAG run may take."""
SETTLING_SECONDS = 3
"""Airflow asks a second time where an answer comes before the scheduler knows that the task is parked."""

LENIENT = {"max_class_psi": 99, "max_ks": 1, "max_extreme": 1, "max_copies": 1, "max_label_errors": 1, "max_drift": 1}
"""Limits of a delivery that all but grey images meet."""


@contextmanager
def started_airflow(home: Path, patch: pytest.MonkeyPatch, *dags: str) -> "Iterator[ApiClient]":
    """The whole stack, with this process as one of its clients; its Airflow has read these DAGs."""
    stack.up(home, print)
    environment = stack.environment(home)
    connect(patch, environment)
    password = stack.airflow_password(home)
    with airflow(environment["CIFAR_AIRFLOW_URL"], stack.AIRFLOW_USER, password, 120) as client:
        wait_until(lambda: all(find_dag(client, dag) is not None for dag in dags), 120)
        yield client


@dataclass(frozen=True)
class WatchedLine:
    """A line, its source `prefix` in the bucket `source`, and a client of the Airflow that watches it."""

    client: "ApiClient"
    source: S3Store
    store: S3Store
    line: str
    prefix: str

    def put(self, name: str, data: bytes) -> None:
        self.source.put(f"{self.prefix}/{name}", data)

    def complete(self) -> None:
        time.sleep(1.1)  # S3 tells whole seconds
        self.put(MARKER, b"")

    def check(self, line: str | None = None) -> DagRun:
        """Start a check of the source."""
        return trigger(self.client, {"line": line or self.line}, DATASET_DAG)

    def ended(self, run: DagRun) -> dict[str, str]:
        """States of its tasks, once it has succeeded."""
        wait_for_end(run, RUN_SECONDS)
        states = self.states(run)
        assert run.state() == "success", states
        return states

    def states(self, run: DagRun) -> dict[str, str]:
        return {str(task.task_id): task.state.value for task in run.tasks() if task.state}

    def waiting_for_a_person(self) -> DagRun:
        """Check the source; the run has quarantined the version."""
        run = self.check()
        wait_until(lambda: self.states(run).get("approve") == AWAITING_INPUT, RUN_SECONDS)
        time.sleep(SETTLING_SECONDS)
        return run

    def answer(self, run: DagRun, option: str, reason: str) -> dict[str, str]:
        self.respond(run, option, reason)
        return self.ended(run)

    def respond(self, run: DagRun, option: str, reason: str) -> None:
        payload = UpdateHITLDetailPayload(chosen_options=[option], params_input={"answer_reason": reason})
        TaskInstanceApi(self.client).update_hitl_detail(run.dag_id, run.run_id, "approve", -1, payload)

    def log(self) -> LineLog:
        return read_line_log(self.store, self.line)

    def events(self) -> list[dict[str, Any]]:
        """What the events of the asset of the line say, the oldest first."""
        events = AssetApi(self.client).get_asset_events(name_pattern=f"dataset_line_{self.line}").asset_events
        return [event.extra for event in events]

    def note(self, run: DagRun) -> str:
        return DagRunApi(self.client).get_dag_run(run.dag_id, run.run_id).note or ""
