"""What a terminal shows of a DAG run."""

import io
from collections.abc import Iterable, Iterator
from itertools import repeat
from types import SimpleNamespace
from typing import Any

import pytest
from airflow_client.client.exceptions import ApiException, ServiceException
from rich.console import Console
from urllib3.exceptions import MaxRetryError

from cifar_tasks.cli.watch import Watcher
from cifar_tasks.errors import StackError


def task(task_id: str, **fields: Any) -> SimpleNamespace:
    defaults = {"map_index": -1, "rendered_map_index": None, "state": None, "duration": None, "id": task_id}
    return SimpleNamespace(task_id=task_id, **{**defaults, **fields})


class RunThatEnds:
    """A DAG run that is over after one look."""

    def __init__(self, *tasks: SimpleNamespace) -> None:
        self.states: Iterator[Any] = iter(["running", "success"])
        self.paused: list[bool] = []
        self._tasks = list(tasks)

    url = "http://airflow/run"

    def state(self) -> str:
        state = next(self.states)
        if isinstance(state, Exception):
            raise state
        return state

    def is_paused(self) -> bool:
        return self.paused.pop(0) if self.paused else False

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


def watched(monkeypatch: pytest.MonkeyPatch, states: Iterable[Any], *, paused: Iterable[bool] = ()) -> tuple[str, str]:
    """State and output of a run that goes through these states; an exception is what Airflow's client raises."""
    monkeypatch.setattr("cifar_tasks.cli.watch.POLL_SECONDS", 0.01)
    console, run = Console(file=io.StringIO(), width=100), RunThatEnds()
    run.states, run.paused = iter(states), list(paused)
    return Watcher(console, run).watch(), console.file.getvalue()


@pytest.mark.parametrize(
    "error", [MaxRetryError(None, "/api", OSError("refused")), ServiceException(status=503, reason="Unavailable")]
)
def test_an_airflow_that_is_away_for_a_while_is_waited_for(monkeypatch, error):
    state, printed = watched(monkeypatch, ["running", error, error, "running", error, "success"])
    assert state == "success"
    assert printed.count("Airflow does not answer") == 2


def test_in_a_terminal_the_table_stays_and_notes_stand_above_it(monkeypatch):
    monkeypatch.setattr("cifar_tasks.cli.watch.POLL_SECONDS", 0.01)
    run = RunThatEnds(task("prepare", state=SimpleNamespace(value="success")))
    run.states = iter(["running", MaxRetryError(None, "/api", OSError("refused")), "success"])
    console = Console(file=io.StringIO(), width=100, force_terminal=True, color_system=None)
    assert Watcher(console, run).watch() == "success"
    assert "Airflow does not answer" in console.file.getvalue()
    assert "prepare" in console.file.getvalue().splitlines()[-1]


def test_an_airflow_that_stays_away_is_an_error_that_says_where_the_run_goes_on(monkeypatch):
    monkeypatch.setattr("cifar_tasks.cli.watch.AWAY_SECONDS", 0.1)
    with pytest.raises(StackError, match="The run may go on: http://airflow/run"):
        watched(monkeypatch, repeat(MaxRetryError(None, "/api", OSError("refused"))))


@pytest.mark.parametrize(("status", "reason"), [(404, "Not Found"), (401, "Unauthorized"), (403, "Forbidden")])
def test_an_airflow_that_refuses_is_not_waited_for(monkeypatch, status, reason):
    with pytest.raises(StackError, match=f"refuses to tell about the run: {status} {reason}.*http://airflow/run"):
        watched(monkeypatch, ["running", ApiException(status=status, reason=reason)])


def test_a_dag_that_is_paused_meanwhile_is_said_once(monkeypatch):
    _, printed = watched(monkeypatch, ["running"] * 4 + ["success"], paused=[False, True, True, False])
    assert printed.count("The DAG is paused") == 1


def test_a_run_that_waits_for_a_person_is_not_watched_any_longer(monkeypatch):
    monkeypatch.setattr("cifar_tasks.cli.watch.POLL_SECONDS", 0)
    run = RunThatEnds(task("approve", state=SimpleNamespace(value="awaiting_input")), task("record"))
    run.states = repeat("running")
    console = Console(file=io.StringIO(), width=100)
    assert Watcher(console, run).watch() == "awaiting_input"
    assert console.file.getvalue() == "  approve: awaiting_input\n"


def test_a_run_that_waits_for_another_one_is_said_once(monkeypatch):
    monkeypatch.setattr("cifar_tasks.cli.watch.QUEUED_SECONDS", 0.02)
    _, printed = watched(monkeypatch, ["queued"] * 8 + ["running", "success"])
    assert printed.count("The run is queued") == 1


def test_progress_that_cannot_be_read_does_not_end_the_watching(monkeypatch):
    monkeypatch.setattr("cifar_tasks.cli.watch.POLL_SECONDS", 0)
    training = task("model.train", map_index=0, rendered_map_index="0", state=SimpleNamespace(value="running"))
    console, run = Console(file=io.StringIO(), width=100), RunThatEnds(training)
    run.result = lambda _: 1 / 0
    assert Watcher(console, run).watch() == "success"
    assert console.file.getvalue() == "  model.train [0]: running\n"


def test_looking_at_a_training_creates_no_experiment(monkeypatch):
    server = SimpleNamespace(get_experiment_by_name=lambda name: None)  # any other request is an AttributeError
    monkeypatch.setattr("cifar_tasks.cli.watch.runs", SimpleNamespace(mlflow_client=lambda: server))
    run = SimpleNamespace(dag_id="dag", run_id="run", result={"select_params": [{"config": {"model": "cnn"}}]}.get)
    assert Watcher(Console(file=io.StringIO()), run=run)._training(0) == "cnn"


def test_a_training_that_runs_is_looked_up_by_the_model_of_its_plan(monkeypatch):
    """Airflow names a mapped task only when it has ended: until then its name is its index."""
    plans = [{"config": {"model": "cnn"}}, {"config": {"model": "resnet50"}}]
    asked = []
    monkeypatch.setattr("cifar_tasks.cli.watch.runs", MlflowWithoutRuns(asked))
    running = task("model.train", map_index=1, rendered_map_index="1", state=SimpleNamespace(value="running"))
    run = SimpleNamespace(dag_id="dag", run_id="run", result={"select_params": plans}.get)
    assert Watcher(Console(file=io.StringIO()), run=run)._progress(running) == "resnet50"
    assert asked == ["resnet50"]


def test_the_best_epoch_that_is_logged_once_more_at_the_end_does_not_count_as_another_one(monkeypatch):
    data = SimpleNamespace(metrics={"validation_accuracy": 0.9}, params={"epochs": "4"})
    training = SimpleNamespace(info=SimpleNamespace(run_id="child"), data=data)
    server = SimpleNamespace(
        get_experiment_by_name=lambda name: SimpleNamespace(experiment_id="1"),
        get_metric_history=lambda run_id, name: [SimpleNamespace(step=step) for step in (1, 2, 3, 4, 4)],
    )
    monkeypatch.setattr("cifar_tasks.cli.watch.runs.mlflow_client", lambda: server)
    monkeypatch.setattr("cifar_tasks.cli.watch.runs.find_runs", lambda *_: [training])
    run = SimpleNamespace(dag_id="dag", run_id="run", result={"select_params": [{"config": {"model": "cnn"}}]}.get)
    shown = Watcher(Console(file=io.StringIO()), run=run)._training(0)
    assert shown == "cnn: epoch 4/4 done, validation accuracy 90.0%"


class MlflowWithoutRuns:
    """MLflow before the training has opened its run."""

    def __init__(self, asked: list[str]) -> None:
        self._asked = asked

    def mlflow_client(self) -> SimpleNamespace:
        return SimpleNamespace(get_experiment_by_name=lambda name: SimpleNamespace(experiment_id="1"))

    def find_runs(self, client: Any, experiment: str, tags: dict[str, str]) -> list[Any]:
        self._asked.append(tags["cifar.model"])
        return []
