"""A DAG run through Airflow's API: in which order its tasks are shown."""

from types import SimpleNamespace
from typing import Any

import pytest

from cifar_tasks.cli.dag_run import DagRun, flow_order

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


class Pages:
    """Airflow's listing, of which each request returns a part."""

    def __init__(self, instances: list[Any]) -> None:
        self.instances = instances

    def get_task_instances(self, dag_id: str, run_id: str, *, limit: int, offset: int) -> SimpleNamespace:
        page = self.instances[offset : offset + limit]
        return SimpleNamespace(task_instances=page, total_entries=len(self.instances))
