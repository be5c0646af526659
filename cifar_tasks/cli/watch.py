"""Progress of a DAG run in a terminal: tasks, trainings and studies."""

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.spinner import Spinner
from rich.table import Table

from cifar_tasks.cli.dag_run import DAG, ENDED, DagRun
from cifar_tasks.settings import Settings
from cifar_tasks.tracking import runs
from cifar_tasks.tracking.runs import MODEL, WORKFLOW

if TYPE_CHECKING:
    from airflow_client.client.models.task_instance_response import TaskInstanceResponse

PLANS, TRAIN, STUDIES, TRIALS = "select_params", "model.train", "tuning.create_studies", "tuning.run_trials"
POLL_SECONDS = 2.0
COLOURS = {
    "success": "green",
    "skipped": "dim",
    "failed": "red",
    "upstream_failed": "red",
    "running": "cyan",
    "up_for_retry": "yellow",
}


@dataclass
class Watcher:
    """A live table in a terminal, otherwise one line per change."""

    console: Console
    run: DagRun
    shown: dict[str, str] = field(default_factory=dict)
    """Task instance → the line printed last."""

    def watch(self) -> str:
        """Wait until the run ends; returns its state."""
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
        if task.map_index < 0 or _state(task) == "waiting":
            return ""
        if task.task_id == TRIALS:
            return self._searching(task.map_index)
        return self._training(task.map_index) if task.task_id == TRAIN else ""

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
        experiment = runs.experiment_id(client, Settings().experiment)
        for child in runs.find_runs(client, experiment, {WORKFLOW: f"{DAG}/{self.run.run_id}", MODEL: model}):
            done = len(client.get_metric_history(child.info.run_id, "validation_accuracy"))
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
