"""Wait for what another process or thread does."""

import time
from collections.abc import Callable

from cifar_tasks.cli.dag_run import ENDED, DagRun

LOG_LINES = 30


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.05)


def wait_for_end(run: DagRun, seconds: float = 300) -> None:
    """Of a DAG run, in success or in failure."""
    deadline = time.monotonic() + seconds
    while run.state() not in ENDED:
        assert time.monotonic() < deadline, f"not ended after {seconds} s: {_states(run)}"
        time.sleep(0.5)


def wait_for_success(run: DagRun, seconds: float = 300) -> None:
    """Of a DAG run; where it failed, the message has the states of its tasks and the end of the logs of those that
    failed."""
    wait_for_end(run, seconds)
    assert run.state() == "success", "\n".join([str(_states(run)), *_failed_logs(run)])


def _states(run: DagRun) -> dict[str, str]:
    return {
        f"{task.task_id}[{task.map_index}]": f"{task.state.value}, try {task.try_number}"
        for task in run.tasks()
        if task.state
    }


def _failed_logs(run: DagRun) -> list[str]:
    from airflow_client.client.api.task_instance_api import TaskInstanceApi
    from airflow_client.client.exceptions import ApiException

    api, lines = TaskInstanceApi(run.client), []
    for task in run.tasks():
        if task.state and task.state.value == "failed":
            lines.append(f"--- {task.task_id}")
            try:
                log = api.get_log(run.dag_id, run.run_id, task.task_id, task.try_number, map_index=task.map_index)
            except ApiException as error:  # it never ran
                lines.append(f"no log: {error.reason}")
                continue
            messages = log.content.actual_instance or []
            lines += [getattr(each, "event", str(each)) for each in messages[-LOG_LINES:]]
    return lines
