"""The rollback DAG as Airflow reads it: its form and its task."""

import inspect
from pkgutil import resolve_name

import pytest
from airflow.sdk.exceptions import ParamValidationError

import cifar10_rollback


@pytest.fixture(scope="module")
def dag():
    return cifar10_rollback.cifar10_rollback()


def test_the_form_demands_a_reason_and_takes_the_previous_champion_if_no_version_is_given(dag):
    assert dag.params.get_param("version").resolve() is None
    assert dag.params.get_param("reason").resolve("worse in production")
    for value in (None, ""):
        with pytest.raises(ParamValidationError):
            dag.params.get_param("reason").resolve(value)


def test_one_task_that_needs_torch_rolls_back_and_writes_the_reasons_into_the_note(dag, monkeypatch):
    given, notes = {}, []

    def step(name, **arguments):
        inspect.signature(resolve_name(f"cifar_tasks.steps.{name}")).bind(**arguments)  # the step takes these
        given.update({"step": name, **arguments})
        return {"reasons": ["rolled back"]}

    monkeypatch.setattr(cifar10_rollback, "workflow_run", lambda: {"id": "dag/run", "name": "run"})
    monkeypatch.setattr(cifar10_rollback, "run_task_step", step)
    monkeypatch.setattr(cifar10_rollback, "show_in_note", notes.append)
    (task,) = dag.tasks
    assert (task.task_id, task.pool, task.queue) == ("roll_back", "gpu", "gpu")
    params = {"registered_model": "mine", "version": None, "reason": "worse"}
    assert task.python_callable(params=params) == {"reasons": ["rolled back"]}
    assert given == {
        "step": "rollback:roll_back",
        "request": {"registered_model": "mine", "version": None, "reason": "worse"},
        "workflow": {"id": "dag/run", "name": "run"},
    }
    assert notes == [["rolled back"]]
