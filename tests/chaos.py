"""Random faults in every process of an embedded stack while DAG runs go on; then the checks of what must hold.

    make chaos RUNS=3 SECONDS=25 SEED=7

Faults: SIGKILL, SIGSTOP for a while, a full disk (as root, on a file system in memory). `cifar up` follows each.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import psutil
import typer
from mlflow import MlflowClient
from mlflow.entities import ViewType
from rich.console import Console
from rich.table import Table
from tenacity import Retrying, stop_after_delay, wait_fixed

from benchmarks.temporary_stack import free_ports, new_home
from cifar_tasks.cli.dag_run import DAG, ENDED, DagRun, trigger
from cifar_tasks.deployment import stack
from cifar_tasks.deployment.airflow_api import airflow
from cifar_tasks.deployment.stack.environment import record_options
from cifar_tasks.deployment.stack.supervisord import marked
from cifar_tasks.errors import CifarError
from cifar_tasks.settings import Settings
from cifar_tasks.storage.s3 import S3Store, sha256_hex
from cifar_tasks.tracking import runs
from cifar_tasks.tracking.runs import MODEL, WORKFLOW

if TYPE_CHECKING:
    from airflow_client.client import ApiClient

MODELS = ("cnn", "efficientnet_lite0")
CONF = {"source": "digits", "models": list(MODELS), "epochs": 3, "pretrained": "none", "registered_model": "chaos"}
CONF |= {"force": True}  # each run trains the same
FAULTS = 6
"""Of one DAG run, at most: a task has three tries."""
DISK = "3g"
"""Size of the file system in memory."""
STEP = "cifar_tasks.steps.process"
RUN_SECONDS = 1800.0
"""Within which a DAG run must end once the faults have stopped."""
console = Console(highlight=False)


@contextmanager
def small_disk() -> Iterator[tuple[Path, bool]]:
    """A home for a stack, and whether its disk may be filled. No process may be left at the end."""
    home = new_home()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK},mode=700", "tmpfs", str(home)]
    mounted = os.geteuid() == 0 and subprocess.run(mount).returncode == 0
    record_options(home, free_ports())
    try:
        yield home, mounted
    finally:
        stack.down(home)
        left = marked(home)
        if mounted:
            subprocess.run(["umount", "--lazy", home], check=True)
        shutil.rmtree(home)
        if left:
            raise SystemExit(f"`cifar down` left processes: {left}")


def kill(process: psutil.Process, _: random.Random) -> None:
    process.kill()


def pause(process: psutil.Process, chance: random.Random) -> None:
    process.suspend()
    time.sleep(chance.uniform(3, 15))
    process.resume()


def fill_disk(home: Path, chance: random.Random) -> None:
    ballast = home / "ballast"
    with suppress(OSError), ballast.open("wb") as file:
        while True:
            file.write(bytes(2**22))
    time.sleep(chance.uniform(3, 10))
    ballast.unlink()


def one_fault(home: Path, may_fill: bool, chance: random.Random) -> str:
    """Cause a fault, then start what it stopped; what it was, for the table."""
    kind = chance.choices(["SIGKILL", "SIGSTOP", "disk full"], [6, 3, 1 if may_fill else 0])[0]
    if kind == "disk full":
        fill_disk(home, chance)
        return kind
    process = chance.choice(marked(home))
    with suppress(psutil.NoSuchProcess):
        name = "step" if STEP in process.cmdline() else process.environ().get("SUPERVISOR_PROCESS_NAME", "supervisord")
        (kill if kind == "SIGKILL" else pause)(process, chance)
        return f"{kind} {name}"
    return "none: the process had ended"


def up(home: Path) -> None:
    """As a person would: again if it fails."""
    for attempt in range(5):
        try:
            stack.up(home, report=lambda line: None)
        except CifarError as error:
            console.print(f"  cifar up: {error}", markup=False)
            time.sleep(3 * attempt)
        else:
            return
    raise SystemExit("`cifar up` does not repair the stack")


def ask(home: Path, question: Callable[["ApiClient"], Any]) -> Any:
    """Airflow's answer, with a new log-in; it may be away for two minutes."""
    password = stack.airflow_password(home)

    def once() -> Any:
        with airflow(stack.environment(home)["CIFAR_AIRFLOW_URL"], stack.AIRFLOW_USER, password) as client:
            return question(client)

    return Retrying(stop=stop_after_delay(120), wait=wait_fixed(2), reraise=True)(once)


def dag_run(home: Path, cause_fault: Callable[[], str] | None = None) -> tuple[str, str]:
    """Id and last state of a DAG run, disturbed by at most six faults."""
    name = str(ask(home, lambda client: trigger(client, CONF)).run_id)
    faults, deadline = FAULTS if cause_fault else 0, time.monotonic() + RUN_SECONDS
    while (state := str(ask(home, lambda client: DagRun(client, name).state()))) not in ENDED:
        if cause_fault and faults:
            faults -= 1
            console.print(f"  {name}: {cause_fault()}", markup=False)
            up(home)
        elif ended := [service.name for service in stack.status(home) if not service.answering]:
            # A full disk makes the scheduler end, but only after the tasks that it runs.
            console.print(f"  {name}: cifar up, for {', '.join(ended)}", markup=False)
            up(home)
        elif time.monotonic() > deadline:
            raise SystemExit(f"{name} does not end; it is {state}")
        else:
            time.sleep(2)
    console.print(f"  {name}: {state}", markup=False)
    return name, state


def metrics_of(client: MlflowClient, run_id: str) -> dict[str, list[tuple[int, float]]]:
    """All but what depends on the time."""
    timed = ("images_per_second", "latency")
    names = [name for name in client.get_run(run_id).data.metrics if not any(part in name for part in timed)]
    return {name: sorted({(m.step, m.value) for m in client.get_metric_history(run_id, name)}) for name in names}


def problems(finished: list[tuple[str, str]]) -> Iterator[str]:
    """What does not hold; the first run was not disturbed."""
    client, store = runs.mlflow_client(), S3Store(Settings().bucket)
    experiment = runs.experiment_id(client, Settings().experiment)
    expected: dict[str, Any] = {}
    for name, state in finished:
        workflow = f"{DAG}/{name}"
        prefix = f"runs/{sha256_hex(workflow.encode())[:16]}/"
        for model in ("all", *MODELS):
            found = runs.find_runs(client, experiment, {WORKFLOW: workflow, MODEL: model})
            if len(found) > 1 or (state == "success" and not found):
                yield f"{name}: {len(found)} MLflow runs of {model}"
            if state != "success" or not found or model == "all":
                continue
            run_id = found[0].info.run_id
            if (got := metrics_of(client, run_id)) != expected.setdefault(model, got):
                yield f"{name}: the metrics of {model} are not those of the undisturbed run"
            versions = client.search_model_versions(f"run_id = '{run_id}'")
            if len(versions) != 1:
                yield f"{name}: {len(versions)} versions of {model}"
        left = [key for key in store.keys(prefix) if "/checkpoints/" in key or key.endswith("/lease.json")]
        if state == "success" and left:
            yield f"{name}: {len(left)} checkpoints and leases are left, such as {left[0]}"
    known = {sha256_hex(f"{DAG}/{name}".encode())[:16] for name, _ in finished}
    for unknown in {key.split("/")[1] for key in store.keys("runs/")} - known:
        yield f"s3://cifar/runs/{unknown} belongs to no run"
    everything = client.search_runs([experiment], run_view_type=ViewType.ALL, max_results=5000)
    for entry in everything:
        if entry.info.status == "RUNNING":
            yield f"MLflow run {entry.info.run_name} ({entry.info.run_id}) is RUNNING"
    ids = {entry.info.run_id for entry in everything}
    models = {model.model_id for model in client.search_logged_models([experiment])}
    for key in S3Store("mlflow").keys(f"artifacts/{experiment}/"):
        owner = key.split("/")[3] if key.split("/")[2] == "models" else key.split("/")[2]
        if owner not in ids | models:
            yield f"mlflow/{key} belongs to no run and no model"


def main(
    number: Annotated[int, typer.Option("--runs", help="DAG runs that are disturbed.")] = 3,
    seconds: Annotated[float, typer.Option(help="Longest time between two faults.")] = 25,
    seed: Annotated[int, typer.Option(help="Of the faults.")] = 7,
) -> None:
    """Disturb DAG runs on an embedded stack of their own, then check what must hold."""
    os.environ["OMP_NUM_THREADS"] = "1"  # the last digits of a training depend on it
    chance, faults = random.Random(seed), Counter[str]()  # noqa: S311 – not a secret
    with small_disk() as (home, may_fill):

        def cause_fault() -> str:
            time.sleep(chance.uniform(1, seconds))
            fault = one_fault(home, may_fill, chance)
            faults[fault] += 1
            return fault

        up(home)
        stack.use(home)
        console.print("a run without faults")
        finished = [dag_run(home)]
        for index in range(number):
            console.print(f"run {index + 1} of {number}")
            finished.append(dag_run(home, cause_fault))
        found = list(problems(finished))
    table = Table("fault", "times")
    for fault, times in sorted(faults.items()):
        table.add_row(fault, str(times))
    console.print(table)
    ended = Counter(state for _, state in finished[1:])
    console.print(f"{sum(faults.values())} faults in {number} DAG runs: {dict(ended)}")
    for problem in found:
        console.print(f"[red]does not hold:[/] {problem}", soft_wrap=True)
    sys.exit(bool(found))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    typer.run(main)
