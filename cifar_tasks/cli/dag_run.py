"""A run of the training DAG through Airflow's public API: log-in, trigger, tasks in order, results."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from cifar_tasks.deployment import stack
from cifar_tasks.errors import ConfigError, StackError
from cifar_tasks.settings import Settings

if TYPE_CHECKING:
    from airflow_client.client import ApiClient
    from airflow_client.client.models.task_instance_response import TaskInstanceResponse

DAG = "cifar10_training"
ENDED = ("success", "failed")
PAGE = 100
"""Task instances per request: the most that Airflow's API returns."""


@dataclass(frozen=True)
class Access:
    """An Airflow, the password of its admin, and hints for the user."""

    url: str
    password: str = field(repr=False)
    hints: Mapping[str, str]


def access_to_deployment(settings: Settings) -> Access | None:
    """The Airflow of the settings, if they name one."""
    if not (settings.airflow_api and settings.airflow_password):
        return None
    hints = {"Log in": "user admin, password in .env: AIRFLOW_ADMIN_PASSWORD (MLflow: MLFLOW_ADMIN_PASSWORD)"}
    return Access(settings.airflow_api, settings.airflow_password.get_secret_value(), hints)


def access_to_embedded_stack(home: Path) -> Access:
    """The Airflow of the running stack in `home`. From here on this process uses that stack."""
    stack.use(home)
    file = stack.password_file(home)
    hints = {
        "Log in": f"user {stack.AIRFLOW_USER}, password in {file}",
        "Stop": "make down   (runs, models and data are kept)",
    }
    return Access(stack.environment(home)["CIFAR_AIRFLOW_URL"], json.loads(file.read_text())[stack.AIRFLOW_USER], hints)


@dataclass
class DagRun:
    """One DAG run, seen through Airflow's public API."""

    client: "ApiClient"
    run_id: str
    _order: dict[str, int] = field(default_factory=dict)

    @property
    def url(self) -> str:
        pages = Settings().airflow_url or self.client.configuration.host
        return f"{pages}/dags/{DAG}/runs/{quote(self.run_id)}"

    def state(self) -> str:
        from airflow_client.client.api.dag_run_api import DagRunApi

        return str(DagRunApi(self.client).get_dag_run(DAG, self.run_id).state.value)

    def tasks(self) -> list["TaskInstanceResponse"]:
        """In the order of the flow; the tasks of a task group are together, one mapped index after the other."""
        from airflow_client.client.api.task_instance_api import TaskInstanceApi

        api, found = TaskInstanceApi(self.client), list["TaskInstanceResponse"]()
        while True:
            page = api.get_task_instances(DAG, self.run_id, limit=PAGE, offset=len(found))
            found += page.task_instances
            if len(found) >= page.total_entries:  # type: ignore[operator]
                break
        order = self._order = self._order or flow_order(self._downstream())
        first = {_group(task): min(order[other] for other in order if _group(other) == _group(task)) for task in order}

        def position(task: "TaskInstanceResponse") -> tuple[int, int, int]:
            name = str(task.task_id)
            return first[_group(name)], task.map_index, order[name]

        return sorted(found, key=position)

    def result(self, task_id: str, map_index: int = -1) -> Any:
        from airflow_client.client.api.x_com_api import XComApi

        entry = XComApi(self.client).get_xcom_entry(
            DAG, task_id, self.run_id, "return_value", map_index=map_index, deserialize=True
        )
        value = getattr(entry.actual_instance, "value", None)
        return json.loads(value) if isinstance(value, str) else value

    def _downstream(self) -> dict[str, list[str]]:
        from airflow_client.client.api.task_api import TaskApi

        tasks = TaskApi(self.client).get_tasks(DAG).tasks
        return {str(task.task_id): list(task.downstream_task_ids or ()) for task in tasks}


def flow_order(downstream: Mapping[str, list[str]]) -> dict[str, int]:
    """Task id → its place in the flow, from the tasks that follow each task."""
    upstream: dict[str, set[str]] = {task: set() for task in downstream}
    for task, followers in downstream.items():
        for follower in followers:
            upstream[follower].add(task)
    return {task: number for number, task in enumerate(TopologicalSorter(upstream).static_order())}


def _group(task_id: str) -> str:
    """The task group, or the task itself where it is in none."""
    return task_id.rpartition(".")[0] or task_id


def trigger(client: "ApiClient", conf: Mapping[str, Any], patience: float = 60.0) -> DagRun:
    """Start the DAG as soon as Airflow has parsed it; `ConfigError` for a value that the form refuses."""
    from airflow_client.client.api.dag_run_api import DagRunApi
    from airflow_client.client.exceptions import BadRequestException, NotFoundException
    from airflow_client.client.models.trigger_dag_run_post_body import TriggerDAGRunPostBody
    from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

    @retry(
        retry=retry_if_exception_type(NotFoundException),
        stop=stop_after_delay(patience),
        wait=wait_fixed(1),
        reraise=True,
    )
    def start() -> DagRun:
        run = DagRunApi(client).trigger_dag_run(DAG, TriggerDAGRunPostBody(conf=dict(conf)))
        return DagRun(client, str(run.dag_run_id))

    try:
        return start()
    except BadRequestException as error:
        detail = str(json.loads(error.body or "{}").get("detail", error.reason)).splitlines()[0]
        raise ConfigError(detail) from None
    except NotFoundException:
        raise StackError(
            f"Airflow does not know the DAG {DAG} after {patience:.0f} s. Its import errors are on the start page."
        ) from None
