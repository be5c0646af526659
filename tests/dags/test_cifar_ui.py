"""Which address a button of a task opens. Real ones: test_dag_run.py."""

import sys
from typing import Any

import pytest
from airflow.models.taskinstancekey import TaskInstanceKey
from airflow.serialization.definitions.operatorlink import XComOperatorLink

from cifar_tasks.settings import PROJECT

sys.path.append(str(PROJECT / "plugins"))  # as Airflow does

from cifar_ui import TaskLink


def of(task: str, index: int = -1) -> TaskInstanceKey:
    return TaskInstanceKey("cifar10_training", task, "run-1", 1, index)


@pytest.fixture
def pushed(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, int], str]:
    """Task and place among the models → address, as the tasks push them to XCom."""
    found: dict[tuple[str, int], str] = {}

    def read(link: Any, operator: Any, *, ti_key: TaskInstanceKey) -> str:
        return found.get((ti_key.task_id, ti_key.map_index), "")

    monkeypatch.setattr(XComOperatorLink, "get_link", read)
    return found


def test_the_model_version_of_a_skipped_model_is_not_that_of_another_model(pushed):
    pushed |= {("model.register", 0): "version 1 of the CNN", ("report", -1): "version 1 of the CNN"}
    version = TaskLink(name="Model version", xcom_key="version_url")
    assert version.get_link(None, ti_key=of("model.train", 0)) == "version 1 of the CNN"
    assert version.get_link(None, ti_key=of("model.train", 1)) == ""
    assert version.get_link(None, ti_key=of("promote")) == "version 1 of the CNN"
    report = TaskLink(name="Report", xcom_key="report_url")
    assert report.get_link(None, ti_key=of("model.train", 1)) == "version 1 of the CNN"
