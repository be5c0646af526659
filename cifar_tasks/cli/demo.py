"""The main job as a person starts it from a terminal: trigger the DAG, watch it, print what came out."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.spinner import Spinner
from rich.table import Table

from cifar_tasks.deployment import stack
from cifar_tasks.errors import ConfigError, StackError
from cifar_tasks.settings import Settings
from cifar_tasks.tracking import runs
from cifar_tasks.tracking.runs import MODEL, WORKFLOW

if TYPE_CHECKING:
    from airflow_client.client import ApiClient
    from airflow_client.client.models.task_instance_response import TaskInstanceResponse

DAG, TRAIN, WORKER = "cifar10_training", "model.train", "search.worker"
FLOW = (
    "prepare",
    "plan",
    "whether_to_tune",
    "remember",
    "search.open_studies",
    WORKER,
    "search.choose",
    "settle",
    TRAIN,
    "model.evaluate",
    "model.register",
    "promote",
    "report",
)
POLL_SECONDS = 2.0
ENDED = ("success", "failed")
COLOURS = {
    "success": "green",
    "skipped": "dim",
    "failed": "red",
    "upstream_failed": "red",
    "running": "cyan",
    "up_for_retry": "yellow",
}


@dataclass
class AirflowRun:
    """One DAG run, seen through Airflow's public API."""

    client: "ApiClient"
    run_id: str

    @property
    def url(self) -> str:
        pages = Settings().airflow_url or self.client.configuration.host
        return f"{pages}/dags/{DAG}/runs/{quote(self.run_id)}"

    def state(self) -> str:
        from airflow_client.client.api.dag_run_api import DagRunApi

        return str(DagRunApi(self.client).get_dag_run(DAG, self.run_id).state.value)

    def tasks(self) -> list["TaskInstanceResponse"]:
        """In the order of the flow, lane by lane."""
        from airflow_client.client.api.task_instance_api import TaskInstanceApi

        found = TaskInstanceApi(self.client).get_task_instances(DAG, self.run_id).task_instances
        return sorted(found, key=lambda task: (_stage(task), task.map_index, FLOW.index(str(task.task_id))))

    def result(self, task_id: str) -> Any:
        from airflow_client.client.api.x_com_api import XComApi

        entry = XComApi(self.client).get_xcom_entry(DAG, task_id, self.run_id, "return_value", deserialize=True)
        value = getattr(entry.actual_instance, "value", None)
        return json.loads(value) if isinstance(value, str) else value


@dataclass(frozen=True)
class Access:
    """An Airflow, the password of its admin, and what a person who works with it wants to know."""

    url: str
    password: str = field(repr=False)
    hints: Mapping[str, str]


def access_to_deployment(settings: Settings) -> Access | None:
    """The Airflow that the settings name, if they do."""
    if not (settings.airflow_api and settings.airflow_password):
        return None
    hints = {"Log in": "user admin, password in .env: AIRFLOW_ADMIN_PASSWORD (MLflow: MLFLOW_ADMIN_PASSWORD)"}
    return Access(settings.airflow_api, settings.airflow_password.get_secret_value(), hints)


def access_to_embedded_stack(home: Path) -> Access:
    """The Airflow of the stack in `home`, which must be up; this process uses that stack from now on."""
    stack.use(home)
    file = stack.password_file(home)
    hints = {
        "Log in": f"user {stack.AIRFLOW_USER}, password in {file}",
        "Stop": "make down   (everything is kept; make demo goes on from there)",
    }
    return Access(stack.environment(home)["CIFAR_AIRFLOW_URL"], json.loads(file.read_text())[stack.AIRFLOW_USER], hints)


def trigger(client: "ApiClient", conf: Mapping[str, Any], patience: float = 60.0) -> AirflowRun:
    """Start the DAG, once Airflow has read it; `ConfigError` for a value that the form refuses."""
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
    def start() -> AirflowRun:
        run = DagRunApi(client).trigger_dag_run(DAG, TriggerDAGRunPostBody(conf=dict(conf)))
        return AirflowRun(client, str(run.dag_run_id))

    try:
        return start()
    except BadRequestException as error:
        detail = str(json.loads(error.body or "{}").get("detail", error.reason)).splitlines()[0]
        raise ConfigError(detail) from None
    except NotFoundException:
        raise StackError(
            f"Airflow does not know the DAG {DAG} after {patience:.0f} s. Its import errors are on the start page."
        ) from None


@dataclass
class Watcher:
    """Shows which task runs, and how far training is; lines instead of a live table where there is no terminal."""

    console: Console
    run: AirflowRun
    seen: dict[str, str] = field(default_factory=dict)
    models: list[str] = field(default_factory=list)
    """By map index; known once the run has planned."""

    def watch(self) -> str:
        """Until the run ends; returns its state."""
        if not self.console.is_terminal:
            while (state := self.run.state()) not in ENDED:
                self._print_changes(self.run.tasks())
                time.sleep(POLL_SECONDS)
            self._print_changes(self.run.tasks())
            return state
        with Live(console=self.console, refresh_per_second=4, transient=True) as live:
            while (state := self.run.state()) not in ENDED:
                live.update(self._table(self.run.tasks()))
                time.sleep(POLL_SECONDS)
        self.console.print(self._table(self.run.tasks()))
        return state

    def _print_changes(self, tasks: list["TaskInstanceResponse"]) -> None:
        for task in tasks:
            line = f"{_name(task)}: {_state(task)} {self._progress(task)}".rstrip()
            if _state(task) != "waiting" and self.seen.get(str(task.id)) != line:
                self.seen[str(task.id)] = line
                self.console.print(f"  {escape(line)}", soft_wrap=True)

    def _table(self, tasks: list["TaskInstanceResponse"]) -> Group:
        table = Table(box=None, padding=(0, 2))
        for title in ("task", "state", "time", ""):
            table.add_column(title, justify="right" if title == "time" else "left")
        for task in tasks:
            state = _state(task)
            shown = Spinner("dots", text="running") if state == "running" else state
            seconds = f"{task.duration:.0f} s" if task.duration else ""
            table.add_row(escape(_name(task)), shown, seconds, escape(self._progress(task)), style=COLOURS.get(state))
        return Group(table)

    def _progress(self, task: "TaskInstanceResponse") -> str:
        if task.map_index < 0 or _state(task) == "waiting":
            return ""
        if task.task_id == WORKER:
            return self._searching(task)
        return self._training(task) if task.task_id == TRAIN else ""

    def _searching(self, task: "TaskInstanceResponse") -> str:
        """Trials of the whole study, as its database knows them."""
        from cifar_tasks.tuning import SharedStudy

        work = self.run.result("search.open_studies")[task.map_index]
        trials = SharedStudy(work["study"]).trials
        ended = sum(trial.state.is_finished() for trial in trials)
        best = max((trial.value for trial in trials if trial.value is not None), default=None)
        so_far = f", best validation accuracy {best:.1%}" if best is not None else ""
        return f"study {work['study']}: {ended}/{work['budget']['trials']} trials done{so_far}"

    def _training(self, task: "TaskInstanceResponse") -> str:
        """Epoch and accuracy so far, as MLflow knows them."""
        if not self.models:
            self.models = [lane["config"]["model"] for lane in self.run.result("plan")]
        model = self.models[task.map_index]
        client = runs.mlflow_client()
        experiment = runs.experiment_id(client, Settings().experiment)
        wanted = f"tags.`{WORKFLOW}` = '{DAG}/{self.run.run_id}' AND tags.`{MODEL}` = '{model}'"
        for child in client.search_runs([experiment], wanted):
            done = len(client.get_metric_history(child.info.run_id, "validation_accuracy"))
            accuracy = child.data.metrics.get("validation_accuracy")
            so_far = f", validation accuracy {accuracy:.1%}" if accuracy is not None else ""
            return f"{model}: epoch {done}/{child.data.params.get('epochs', '?')} done{so_far}"
        return model


def _stage(task: "TaskInstanceResponse") -> int:
    """The lanes of the models are one stage of the flow."""
    return FLOW.index(TRAIN) if str(task.task_id).startswith("model.") else FLOW.index(str(task.task_id))


def _name(task: "TaskInstanceResponse") -> str:
    if task.map_index < 0:
        return str(task.task_id)
    return f"{task.task_id} [{task.rendered_map_index or task.map_index}]"


def _state(task: "TaskInstanceResponse") -> str:
    return task.state.value if task.state else "waiting"


def print_summary(console: Console, summary: Mapping[str, Any], hints: Mapping[str, str] | None = None) -> None:
    """The table, the reasons, the links and `hints`, to be pasted where they are needed."""
    if summary["banner"]:
        console.print(f"[bold yellow]{escape(summary['banner'])}[/]")
    table = Table("model", "parameters", "epochs", "validation", "test", "version", "alias")
    for row in summary["rows"]:
        table.add_row(
            row["model"],
            f"{row['parameters']:,}",
            str(row["epochs"]),
            f"{row['validation_accuracy']:.2%}",
            f"{row['test_accuracy']:.2%}",
            str(row["version"]),
            ", ".join(row["aliases"]),
        )
    console.print(table)
    for reason in summary["reasons"]:
        console.print(f"  {escape(reason)}", soft_wrap=True)
    links = {"Report": "report_url", "MLflow run": "mlflow_url", "Compare": "compare_url", "Airflow run": "airflow_url"}
    for title, key in links.items():
        if summary.get(key):
            console.print(f"{title:<12} {escape(summary[key])}", soft_wrap=True)
    for title, hint in (hints or {}).items():
        console.print(f"{title:<12} {escape(hint)}", soft_wrap=True)
