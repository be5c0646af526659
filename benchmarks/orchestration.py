"""What Airflow adds to the steps of the training DAG, in an embedded stack of its own: the CNN on the digits of
scikit-learn, one epoch."""

import itertools
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import track

from benchmarks.measure import Row
from benchmarks.temporary_stack import whole_stack
from cifar_tasks.cli.dag_run import trigger
from cifar_tasks.config import Overrides
from cifar_tasks.deployment import stack
from cifar_tasks.deployment.airflow_api import access_to_embedded_stack, airflow
from cifar_tasks.errors import StackError
from cifar_tasks.steps.evaluate import evaluate_model
from cifar_tasks.steps.payloads import RunRequest, WorkflowRun
from cifar_tasks.steps.plan import plan_training
from cifar_tasks.steps.prepare import prepare_data
from cifar_tasks.steps.register import register_model
from cifar_tasks.steps.report import report
from cifar_tasks.steps.select_params import select_params
from cifar_tasks.steps.train import train_model

if TYPE_CHECKING:
    from airflow_client.client import ApiClient

MOST_BETWEEN_TASKS = 0.7
MOST_TO_START = 2.0
LITTLE_WORK = ("plan_training", "select_params")
"""Steps without torch that are done as soon as they have started."""


@dataclass(frozen=True)
class Times:
    """Seconds of one DAG run."""

    whole: float
    tasks: int
    between: float
    """From the end of a task to the start of the next one, median."""
    little_work: float
    """The longest task of `LITTLE_WORK`."""


def measure(rounds: int) -> list[Row]:
    with whole_stack() as home:
        access = access_to_embedded_stack(home)
        with airflow(access.url, stack.AIRFLOW_USER, access.password) as client:
            taken, alone = list[Times](), list[float]()
            for number in track(range(rounds + 1), "DAG runs", console=Console(stderr=True)):
                taken.append(run_dag(client, number))
                alone.append(run_in_this_process(number))
    taken, alone = taken[1:], alone[1:]
    whole, in_one = statistics.median(each.whole for each in taken), statistics.median(alone)
    between = statistics.median(each.between for each in taken)
    added = statistics.median((run.whole - steps) / run.tasks for run, steps in zip(taken, alone, strict=True))
    start = statistics.median(each.little_work for each in taken)
    figures = {"DAG run": f"{whole:.1f} s, {taken[0].tasks} tasks", "in one process": f"{in_one:.1f} s"}
    return [
        Row("between two tasks within 0.7 s", {"median": f"{between:.2f} s"}, MOST_BETWEEN_TASKS / between, 1),
        Row("steps as a DAG run", figures | {"more per task": f"{added:.2f} s"}),
        Row("a task without torch within 2 s", {"longest": f"{start:.2f} s"}, MOST_TO_START / start, 1),
    ]


def request(number: int, registered_model: str) -> RunRequest:
    return RunRequest(
        source="digits",
        models=["cnn"],
        profile="demo",
        registered_model=registered_model,
        promotion="never",
        force=True,
        overrides=Overrides(epochs=1, seed=number),
    )


def run_dag(client: "ApiClient", number: int) -> Times:
    run = trigger(client, request(number, f"dag-{number}").as_form())
    while (state := run.state()) not in ("success", "failed"):
        time.sleep(2)  # asking costs the API server time
    if state == "failed":
        raise StackError(f"the DAG run failed: {run.url}")
    tasks = [each for each in run.tasks() if each.state and each.state.value == "success"]
    tasks.sort(key=lambda each: each.start_date)  # with one model they run one after the other
    between = [(after.start_date - task.end_date).total_seconds() for task, after in itertools.pairwise(tasks)]
    seconds = {each.task_id: (each.end_date - each.start_date).total_seconds() for each in tasks}
    return Times(
        whole=(tasks[-1].end_date - tasks[0].start_date).total_seconds(),
        tasks=len(tasks),
        between=statistics.median(between),
        little_work=max(seconds[name] for name in LITTLE_WORK),
    )


def run_in_this_process(number: int) -> float:
    """Seconds of the same steps."""
    workflow = WorkflowRun(id=f"orchestration/{number}", name=f"orchestration-{number}")
    began = time.perf_counter()
    plans = select_params(plan_training(prepare_data(request(number, f"steps-{number}"), workflow)), [])
    report([register_model(evaluate_model(train_model(plan))) for plan in plans], plans)
    return time.perf_counter() - began
