"""A DAG run that is disturbed by faults until it ends."""

import random
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from rich.console import Console
from tenacity import Retrying, stop_after_delay, wait_fixed

from cifar_tasks.cli.dag_run import ENDED, DagRun, trigger
from cifar_tasks.deployment.airflow_api import airflow, reason
from cifar_tasks.errors import StackError

if TYPE_CHECKING:
    from airflow_client.client import ApiClient

MODELS = ("cnn", "efficientnet_lite0")
CONF = {"source": "digits", "models": list(MODELS), "epochs": 3, "pretrained": "none"}
CONF |= {"force": True}  # each run trains the same
FAULTS = 6
"""Of one DAG run, at most: a task has three tries."""
STEP = "cifar_tasks.steps.process"
RUN_SECONDS = 1800.0
"""Within which a DAG run must end once the faults have stopped."""
console = Console(highlight=False)


class Disturbed(Protocol):
    """What is disturbed. It belongs to this test alone."""

    airflow_url: str
    airflow_password: str

    def up(self) -> None:
        """What a person calls after a fault; `StackError` if it fails."""

    def ended(self) -> list[str]:
        """Services that run no more."""

    def fault(self, chance: random.Random) -> str | None:
        """Cause one; what it was, for the table. None if the process that was chosen had ended."""

    def steps(self) -> list[str]:
        """Processes of steps."""

    def keys(self, bucket: str, prefix: str) -> Iterator[str]:
        """Of all objects."""


def up(deployment: Disturbed) -> None:
    """As a person would: again if it fails."""
    for attempt in range(5):
        try:
            deployment.up()
        except StackError as error:
            console.print(f"  up: {error}", markup=False)
            time.sleep(3 * attempt)
        else:
            return
    raise SystemExit("the deployment cannot be repaired")


def ask(deployment: Disturbed, question: Callable[["ApiClient"], Any]) -> Any:
    """Airflow's answer, with a new log-in; it may be away for two minutes."""

    def once() -> Any:
        with airflow(deployment.airflow_url, "admin", deployment.airflow_password) as client:
            return question(client)

    return Retrying(stop=stop_after_delay(120), wait=wait_fixed(2), reraise=True)(once)


def dag_run(deployment: Disturbed, cause_fault: Callable[[], str] | None = None) -> tuple[str, str]:
    """Id and last state of a DAG run, disturbed by at most six faults."""
    name = str(ask(deployment, lambda client: trigger(client, CONF)).run_id)
    faults, deadline = FAULTS if cause_fault else 0, time.monotonic() + RUN_SECONDS
    while (state := str(ask(deployment, lambda client: DagRun(client, name).state()))) not in ENDED:
        if cause_fault and faults:
            faults -= 1
            console.print(f"  {name}: {cause_fault()}", markup=False)
            up(deployment)
        elif ended := deployment.ended():
            # A full disk makes the scheduler end, but only after the tasks that it runs.
            console.print(f"  {name}: up, for {', '.join(ended)}", markup=False)
            up(deployment)
        elif time.monotonic() > deadline:
            raise SystemExit(f"{name} does not end; it is {state}")
        else:
            time.sleep(2)
    console.print(f"  {name}: {state}", markup=False)
    if state == "failed":
        for line in ask(deployment, lambda client: why_failed(client, name)):
            console.print(f"    {line}", markup=False)
    return name, state


def why_failed(client: "ApiClient", run_id: str) -> list[str]:
    """The tasks that failed, each with the end of the log of its last try."""
    from airflow_client.client.api.task_instance_api import TaskInstanceApi
    from airflow_client.client.exceptions import OpenApiException

    lines = []
    for task in DagRun(client, run_id).tasks():
        if task.state and task.state.value == "failed":
            lines += [f"{task.task_id} [{task.map_index}], try {task.try_number}:"]
            try:
                log = TaskInstanceApi(client).get_log(
                    task.dag_id, run_id, task.task_id, task.try_number, full_content=True, map_index=task.map_index
                )
            except OpenApiException as error:
                lines += [f"no log: {reason(error)}"]
                continue
            entries = log.content.actual_instance or []
            lines += [str(getattr(entry, "to_dict", lambda entry=entry: entry)()) for entry in entries[-30:]]
    return lines


def unfinished(client: "ApiClient") -> list[str]:
    """DAG runs of all DAGs, those of promotions too."""
    from airflow_client.client.api.dag_run_api import DagRunApi

    found = DagRunApi(client).get_dag_runs("~", state=["queued", "running"]).dag_runs
    return [f"{run.dag_id} {run.dag_run_id}" for run in found]


def wait_for_promotions(deployment: Disturbed, seconds: float = 300) -> list[str]:
    """Those that have not ended by then: a training does not wait for its promotion."""
    deadline = time.monotonic() + seconds
    while (left := ask(deployment, unfinished)) and time.monotonic() < deadline:
        if deployment.ended():
            up(deployment)
        time.sleep(2)
    return [str(name) for name in left]
