"""What a terminal shows of a DAG run."""

import io
from types import SimpleNamespace
from typing import Any

from rich.console import Console

from cifar_tasks.cli.watch import Watcher


def task(task_id: str, **fields: Any) -> SimpleNamespace:
    defaults = {"map_index": -1, "rendered_map_index": None, "state": None, "duration": None, "id": task_id}
    return SimpleNamespace(task_id=task_id, **{**defaults, **fields})


class RunThatEnds:
    """A DAG run that is over after one look."""

    def __init__(self, *tasks: SimpleNamespace) -> None:
        self.states = iter(["running", "success"])
        self._tasks = list(tasks)

    def state(self) -> str:
        return next(self.states)

    def tasks(self) -> list[SimpleNamespace]:
        return self._tasks


def test_a_mapped_task_is_shown_with_the_name_of_its_model():
    mapped = task("model.register", map_index=1, rendered_map_index="resnet50", state=SimpleNamespace(value="success"))
    console = Console(file=io.StringIO(), width=100)
    console.print(Watcher(console, run=None)._table([task("prepare"), mapped]))
    text = console.file.getvalue()
    assert "model.register [resnet50]" in text
    assert "waiting" in text


def test_without_a_terminal_each_change_is_one_line(monkeypatch):
    monkeypatch.setattr("cifar_tasks.cli.watch.POLL_SECONDS", 0)
    console = Console(file=io.StringIO(), width=100)
    run = RunThatEnds(task("prepare", state=SimpleNamespace(value="success")), task("report"))
    assert Watcher(console, run).watch() == "success"
    assert console.file.getvalue() == "  prepare: success\n"


def test_a_training_that_runs_is_looked_up_by_the_model_of_its_plan(monkeypatch):
    """Airflow names a mapped task only when it has ended: until then its name is its index."""
    plans = [{"config": {"model": "cnn"}}, {"config": {"model": "resnet50"}}]
    asked = []
    monkeypatch.setattr("cifar_tasks.cli.watch.runs", MlflowWithoutRuns(asked))
    running = task("model.train", map_index=1, rendered_map_index="1", state=SimpleNamespace(value="running"))
    run = SimpleNamespace(run_id="run", result={"select_params": plans}.get)
    assert Watcher(Console(file=io.StringIO()), run=run)._progress(running) == "resnet50"
    assert asked == ["resnet50"]


class MlflowWithoutRuns:
    """MLflow before the training has opened its run."""

    def __init__(self, asked: list[str]) -> None:
        self._asked = asked

    def mlflow_client(self) -> None:
        return None

    def experiment_id(self, client: None, name: str) -> str:
        return "1"

    def find_runs(self, client: None, experiment: str, tags: dict[str, str]) -> list[Any]:
        self._asked.append(tags["cifar.model"])
        return []
