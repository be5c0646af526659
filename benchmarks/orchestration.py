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
from cifar_tasks.cli.dag_run import ENDED, trigger
from cifar_tasks.config import Overrides
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
"""Steps without torch that are short: most of the time of their tasks is the start."""


@dataclass(frozen=True)
class Times:
    """Seconds of the tasks of one DAG run, or of the same steps in this process."""

    whole: float
    of_each: dict[str, float]
    between: float = 0.0
    """From the end of a task to the start of the next one, median."""


def measure(rounds: int) -> list[Row]:
    with whole_stack() as home:
        access = access_to_embedded_stack(home)
        with airflow(access.url, access.user, access.password) as client:
            pairs = [
                (run_dag(client, number), run_in_this_process(number))
                for number in track(range(rounds + 1), "DAG runs", console=Console(stderr=True))
            ][1:]
    between = statistics.median(run.between for run, _ in pairs)
    start = statistics.median(
        max(run.of_each[name] - steps.of_each[name] for name in LITTLE_WORK) for run, steps in pairs
    )
    added = statistics.median((run.whole - steps.whole) / len(run.of_each) for run, steps in pairs)
    figures = {
        f"DAG run, {len(pairs[0][0].of_each)} tasks": f"{statistics.median(run.whole for run, _ in pairs):.1f} s",
        "in one process": f"{statistics.median(steps.whole for _, steps in pairs):.1f} s",
        "more per task": f"{added:.2f} s",
    }
    return [
        Row("between two tasks within 0.7 s", {"median": f"{between:.2f} s"}, MOST_BETWEEN_TASKS / between, 1),
        Row("a step without torch works within 2 s", {"longest": f"{start:.2f} s"}, MOST_TO_START / start, 1),
        Row("steps as a DAG run", figures),
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
    while (state := run.state()) not in ENDED:
        time.sleep(2)  # asking costs the API server time
    if state == "failed":
        raise StackError(f"the DAG run failed: {run.url}")
    tasks = [each for each in run.tasks() if each.state and each.state.value == "success"]
    tasks.sort(key=lambda each: each.start_date)  # with one model they run one after the other
    pauses = [(later.start_date - task.end_date).total_seconds() for task, later in itertools.pairwise(tasks)]
    return Times(
        (tasks[-1].end_date - tasks[0].start_date).total_seconds(),
        {task.task_id: (task.end_date - task.start_date).total_seconds() for task in tasks},
        statistics.median(pauses),
    )


def run_in_this_process(number: int) -> Times:
    workflow = WorkflowRun(id=f"orchestration/{number}", name=f"orchestration-{number}")
    began = time.perf_counter()
    data = prepare_data(request(number, f"steps-{number}"), workflow)
    prepared = time.perf_counter()
    plans = plan_training(data)
    planned = time.perf_counter()
    plans = select_params(plans, [])
    selected = time.perf_counter()
    report([register_model(evaluate_model(train_model(plan))) for plan in plans], plans)
    of_each = {"plan_training": planned - prepared, "select_params": selected - planned}
    return Times(time.perf_counter() - began, of_each)
