"""A run of a DAG through Airflow's public API: log-in, trigger, tasks in order, results."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from cifar_tasks.cli.terminal import waiting_for
from cifar_tasks.deployment.airflow_api import find_dag, import_errors
from cifar_tasks.deployment.dag_ids import TRAINING_DAG
from cifar_tasks.errors import ConfigError, StackError
from cifar_tasks.settings import Settings
from cifar_tasks.storage.hosts import without_login

if TYPE_CHECKING:
    from airflow_client.client import ApiClient
    from airflow_client.client.models.task_instance_response import TaskInstanceResponse

ENDED = ("success", "failed")
PAGE = 100
"""Task instances per request: the most that Airflow's API returns."""


@dataclass
class DagRun:
    """One DAG run, seen through Airflow's public API."""

    client: "ApiClient"
    run_id: str
    dag_id: str = TRAINING_DAG
    _order: dict[str, int] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"{_page(self.client, self.dag_id)}/runs/{quote(self.run_id)}"

    def state(self) -> str:
        from airflow_client.client.api.dag_run_api import DagRunApi

        return str(DagRunApi(self.client).get_dag_run(self.dag_id, self.run_id).state.value)

    def is_skipped(self) -> bool:
        """Whether its first task was skipped, and with it all others."""
        states = [task.state.value for task in self.tasks() if task.state]
        return bool(states) and set(states) == {"skipped"}

    def is_paused(self) -> bool:
        """Whether the DAG is: then Airflow starts no task of its runs."""
        dag = find_dag(self.client, self.dag_id)
        return dag is not None and dag.is_paused

    def tasks(self) -> list["TaskInstanceResponse"]:
        """In the order of the flow; the tasks of a task group are together, one mapped index after the other."""
        from airflow_client.client.api.task_instance_api import TaskInstanceApi

        api, found = TaskInstanceApi(self.client), list["TaskInstanceResponse"]()
        while True:
            page = api.get_task_instances(self.dag_id, self.run_id, limit=PAGE, offset=len(found))
            found += page.task_instances
            if not page.task_instances or len(found) >= page.total_entries:  # type: ignore[operator]
                break
        order = self._order = self._order or flow_order(self._downstream())
        first = {_group(task): min(order[other] for other in order if _group(other) == _group(task)) for task in order}

        def position(task: "TaskInstanceResponse") -> tuple[int, int, int]:
            name = str(task.task_id)
            return first[_group(name)], task.map_index, order[name]

        return sorted(found, key=position)

    def result(self, task_id: str, map_index: int = -1, key: str = "return_value") -> Any:
        """What the task has returned, or pushed with another key."""
        from airflow_client.client.api.x_com_api import XComApi

        entry = XComApi(self.client).get_xcom_entry(
            self.dag_id, task_id, self.run_id, key, map_index=map_index, deserialize=True
        )
        value = getattr(entry.actual_instance, "value", None)
        return json.loads(value) if isinstance(value, str) and key == "return_value" else value

    def _downstream(self) -> dict[str, list[str]]:
        from airflow_client.client.api.task_api import TaskApi

        tasks = TaskApi(self.client).get_tasks(self.dag_id).tasks
        return {str(task.task_id): list(task.downstream_task_ids or ()) for task in tasks}


def flow_order(downstream: Mapping[str, list[str]]) -> dict[str, int]:
    """Task id → its place in the flow, from the tasks that follow each task."""
    upstream: dict[str, set[str]] = {task: set() for task in downstream}
    for task, followers in downstream.items():
        for follower in followers:
            upstream[follower].add(task)
    return {task: number for number, task in enumerate(TopologicalSorter(upstream).static_order())}


def _page(client: "ApiClient", dag_id: str) -> str:
    """Of a DAG, in Airflow's UI."""
    return f"{without_login(Settings().airflow_url or client.configuration.host)}/dags/{dag_id}"


def _group(task_id: str) -> str:
    """The task group, or the task itself where it is in none."""
    return task_id.rpartition(".")[0] or task_id


def trigger(client: "ApiClient", conf: Mapping[str, Any], dag_id: str = TRAINING_DAG, patience: float = 60.0) -> DagRun:
    """Start the DAG as soon as Airflow has parsed it.

    `ConfigError` for a value that the form refuses, `StackError` if the DAG cannot be imported or is paused.
    """
    from airflow_client.client.api.dag_run_api import DagRunApi
    from airflow_client.client.exceptions import BadRequestException
    from airflow_client.client.models.trigger_dag_run_post_body import TriggerDAGRunPostBody

    _wait_for_dag(client, dag_id, patience)
    try:
        run = DagRunApi(client).trigger_dag_run(dag_id, TriggerDAGRunPostBody(conf=dict(conf)))
    except BadRequestException as error:
        try:
            detail = str(json.loads(error.body or "")["detail"]).splitlines()[0]
        except (ValueError, LookupError, TypeError):
            raise error from None  # no answer of Airflow's API: perhaps the page of a proxy
        raise ConfigError(detail) from None
    return DagRun(client, str(run.dag_run_id), dag_id)


def _wait_for_dag(client: "ApiClient", dag_id: str, patience: float) -> None:
    if _is_parsed(client, dag_id):
        return
    deadline = time.monotonic() + patience
    with waiting_for(f"Airflow to read the DAG {dag_id}, up to {patience:.0f} s"):
        while time.monotonic() <= deadline:
            time.sleep(1)
            if _is_parsed(client, dag_id):
                return
    if broken := import_errors(client, dag_id):
        raise StackError("Airflow cannot import the DAG. " + "\n".join(broken))
    raise StackError(f"Airflow does not know the DAG {dag_id} after {patience:.0f} s. Check: `cifar doctor`")


def _is_parsed(client: "ApiClient", dag_id: str) -> bool:
    dag = find_dag(client, dag_id)
    broken = import_errors(client, dag_id)  # which may be mended already: Airflow has to parse the file again
    if dag is not None and dag.is_paused:
        page = _page(client, dag_id)
        raise StackError(f"the DAG {dag_id} is paused: a run would wait. Unpause it, with the switch on {page}")
    return dag is not None and not dag.is_stale and not broken
