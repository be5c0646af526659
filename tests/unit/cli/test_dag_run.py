"""A DAG run through Airflow's API: in which order its tasks are shown, and what a refusal means."""

from types import SimpleNamespace
from typing import Any

import pytest

from cifar_tasks.cli.dag_run import DagRun, flow_order, trigger
from cifar_tasks.deployment.airflow_api import airflow
from cifar_tasks.errors import StackError
from tests.answers import server_that_answers

DOWNSTREAM = {
    "report": [],
    "model.train": ["model.evaluate"],
    "plan": ["search.create", "select"],
    "model.evaluate": ["report"],
    "search.run": ["select"],
    "select": ["model.train"],
    "search.create": ["search.run"],
}


def test_tasks_are_ordered_by_what_follows_what():
    order = flow_order(DOWNSTREAM)
    expected = ["plan", "search.create", "search.run", "select", "model.train", "model.evaluate", "report"]
    assert sorted(order, key=order.__getitem__) == expected


def test_a_mapped_group_is_listed_model_by_model_and_every_page_is_read(monkeypatch: pytest.MonkeyPatch):
    instances = [SimpleNamespace(task_id=name, map_index=index) for name, index in ALL]
    run = DagRun(client=None, run_id="run")
    monkeypatch.setattr("cifar_tasks.cli.dag_run.PAGE", 2)
    monkeypatch.setattr(run, "_downstream", lambda: DOWNSTREAM, raising=False)
    monkeypatch.setattr("airflow_client.client.api.task_instance_api.TaskInstanceApi", lambda _: Pages(instances))
    assert [(task.task_id, task.map_index) for task in run.tasks()] == [
        ("plan", -1),
        ("search.create", -1),
        ("search.run", 0),
        ("search.run", 1),
        ("select", -1),
        ("model.train", 0),
        ("model.evaluate", 0),
        ("model.train", 1),
        ("model.evaluate", 1),
        ("report", -1),
    ]


ALL = [
    ("report", -1),
    ("model.evaluate", 1),
    ("model.train", 0),
    ("search.run", 1),
    ("plan", -1),
    ("model.train", 1),
    ("select", -1),
    ("model.evaluate", 0),
    ("search.run", 0),
    ("search.create", -1),
]


@pytest.mark.parametrize("body", ["<html>a page of a proxy</html>", "[]", "{}", '{"detail": ""}', ""])
def test_a_refusal_that_is_not_airflow_s_is_an_error_of_ours(monkeypatch: pytest.MonkeyPatch, body: str):
    monkeypatch.setattr("cifar_tasks.cli.dag_run._wait_for_dag", lambda *_: None)
    monkeypatch.setattr("cifar_tasks.deployment.airflow_api._log_in", lambda *_: "token")
    with (
        server_that_answers(400, body) as address,
        pytest.raises(StackError, match=f"{address} did not answer as expected: 400 Bad Request"),
        airflow(address, "admin", "word") as client,
    ):
        trigger(client, {})


def test_a_dag_that_airflow_has_not_read_is_waited_for_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("cifar_tasks.deployment.airflow_api._log_in", lambda *_: "token")
    monkeypatch.setattr("cifar_tasks.cli.dag_run.import_errors", lambda *_: [])
    with (
        server_that_answers(404) as address,
        airflow(address, "admin", "word") as client,
        pytest.raises(StackError, match="does not know the DAG cifar10_training after 0 s"),
    ):
        trigger(client, {}, patience=0)
    assert capsys.readouterr().err == "Waiting for Airflow to read the DAG cifar10_training, up to 0 s\n"


class Pages:
    """Airflow's listing, of which each request returns a part."""

    def __init__(self, instances: list[Any]) -> None:
        self.instances = instances

    def get_task_instances(self, dag_id: str, run_id: str, *, limit: int, offset: int) -> SimpleNamespace:
        page = self.instances[offset : offset + limit]
        return SimpleNamespace(task_instances=page, total_entries=len(self.instances))
