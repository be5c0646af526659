"""Progress of a DAG run in a terminal: tasks, trainings and studies."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_client.client.exceptions import ApiException
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.spinner import Spinner
from rich.table import Table
from urllib3.exceptions import HTTPError

from cifar_tasks.cli.dag_run import ENDED, DagRun
from cifar_tasks.deployment.airflow_api import reason
from cifar_tasks.errors import StackError
from cifar_tasks.settings import Settings
from cifar_tasks.tracking import runs
from cifar_tasks.tracking.runs import MODEL, WORKFLOW

if TYPE_CHECKING:
    from airflow_client.client.models.task_instance_response import TaskInstanceResponse

_log = logging.getLogger(__name__)

PLANS, TRAIN, STUDIES, TRIALS = "select_params", "model.train", "tuning.create_studies", "tuning.run_trials"
POLL_SECONDS = 2.0
AWAY_SECONDS = 120.0
"""How long to wait for an Airflow that does not answer: it may be starting again."""
QUEUED_SECONDS = 15.0
"""A run that waits longer is waiting for another one."""
AWAITING_INPUT = "awaiting_input"
"""State of a task that waits for an answer of a person."""
PAUSED = "The DAG is paused in Airflow: the tasks wait until you unpause it, with the switch on its page."
QUEUED = "The run is queued: Airflow starts it when the run before it has ended."
COLOURS = {
    "success": "green",
    "skipped": "dim",
    "failed": "red",
    "upstream_failed": "red",
    "running": "cyan",
    "up_for_retry": "yellow",
    AWAITING_INPUT: "yellow",
}


@dataclass
class Watcher:
    """A live table in a terminal, otherwise one line per change."""

    console: Console
    run: DagRun
    shown: dict[str, str] = field(default_factory=dict)
    """Task instance → the line printed last."""
    noted: set[str] = field(default_factory=set)
    """What keeps the run waiting, as far as it was printed."""

    def watch(self) -> str:
        """Wait until the run ends, and return its state, or until a task waits for a person: `AWAITING_INPUT`.

        `StackError` if Airflow does not answer for `AWAY_SECONDS`.
        """
        if not self.console.is_terminal:
            return self._follow(self._print_changes)
        with Live(console=self.console, refresh_per_second=4, transient=True) as live:
            state = self._follow(lambda tasks: live.update(self._table(tasks)))
        self.console.print(self._table(self.run.tasks()))
        return state

    def _follow(self, show: Callable[[list["TaskInstanceResponse"]], None]) -> str:
        began, away_since = time.monotonic(), None
        while True:
            try:
                state = self.run.state()
                tasks = self.run.tasks()
                show(tasks)
                self._note("paused", self.run.is_paused(), PAUSED)
                self._note("queued", state == "queued" and time.monotonic() - began > QUEUED_SECONDS, QUEUED)
                self._note("away", False, "")
                away_since = None
                if state in ENDED:
                    return state
                if AWAITING_INPUT in map(_state, tasks):
                    return AWAITING_INPUT
            except (ApiException, HTTPError) as error:
                away_since = self._while_away(error, away_since)
            time.sleep(POLL_SECONDS)

    def _while_away(self, error: Exception, since: float | None) -> float:
        """Since when Airflow is away. `StackError` after `AWAY_SECONDS`, or at once if it answers and refuses."""
        goes_on = f"The run may go on: {self.run.url}"
        if isinstance(error, ApiException) and error.status and error.status < 500:
            raise StackError(f"Airflow refuses to tell about the run: {reason(error)}. {goes_on}") from error
        now = time.monotonic()
        if since is not None and now - since > AWAY_SECONDS:
            raise StackError(
                f"Airflow has not answered for {AWAY_SECONDS:.0f} s. {goes_on}\nCheck it: `cifar doctor`"
            ) from error
        self._note(
            "away", True, f"Airflow does not answer ({reason(error)}). Waiting up to {AWAY_SECONDS:.0f} s for it."
        )
        return now if since is None else since

    def _note(self, topic: str, holds: bool, text: str) -> None:
        """Print `text` when `topic` begins to hold."""
        if holds and topic not in self.noted:
            self.console.print(f"  {escape(text)}", soft_wrap=True)
        (self.noted.add if holds else self.noted.discard)(topic)

    def _print_changes(self, tasks: list["TaskInstanceResponse"]) -> None:
        for task in tasks:
            line = f"{_name(task)}: {_state(task)} {self._progress(task)}".rstrip()
            if _state(task) != "waiting" and self.shown.get(str(task.id)) != line:
                self.shown[str(task.id)] = line
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
        """How far a task is, from MLflow and the database of studies; nothing if they do not answer."""
        if task.map_index < 0 or _state(task) == "waiting":
            return ""
        try:
            if task.task_id == TRIALS:
                return self._searching(task.map_index)
            return self._training(task.map_index) if task.task_id == TRAIN else ""
        except Exception as error:  # a client library may raise anything: the run goes on without this line
            _log.debug("no progress of %s: %s", task.task_id, error)
            return ""

    def _searching(self, index: int) -> str:
        """Trials of the whole study, from its database."""
        from cifar_tasks.tuning.study import count_ended, load_study

        worker = self.run.result(STUDIES)[index]
        study = load_study(worker["study"])
        ended, values = count_ended(study), [trial.value for trial in study.trials if trial.value is not None]
        best = max(values, default=None)
        accuracy = f", best validation accuracy {best:.1%}" if best is not None else ""
        return f"study {worker['study']}: {ended}/{worker['budget']['trials']} trials done{accuracy}"

    def _training(self, index: int) -> str:
        """Epoch and accuracy, from MLflow. The model is that of the plan: Airflow names a mapped task when it ends."""
        model = str(self.run.result(PLANS)[index]["config"]["model"])
        client = runs.mlflow_client()
        experiment = client.get_experiment_by_name(Settings().experiment)
        if experiment is None:
            return model
        for child in runs.find_runs(
            client, experiment.experiment_id, {WORKFLOW: f"{self.run.dag_id}/{self.run.run_id}", MODEL: model}
        ):
            done = len(runs.logged_steps(client, child.info.run_id, "validation_accuracy"))  # the best one stands twice
            accuracy = child.data.metrics.get("validation_accuracy")
            reached = f", validation accuracy {accuracy:.1%}" if accuracy is not None else ""
            return f"{model}: epoch {done}/{child.data.params.get('epochs', '?')} done{reached}"
        return model


def _name(task: "TaskInstanceResponse") -> str:
    if task.map_index < 0:
        return str(task.task_id)
    return f"{task.task_id} [{task.rendered_map_index or task.map_index}]"


def _state(task: "TaskInstanceResponse") -> str:
    return task.state.value if task.state else "waiting"
