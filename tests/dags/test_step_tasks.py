"""What the DAG files share: how they are parsed, how a task runs its step, what is retried, which button it shows."""

import importlib
import json
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException, ParamValidationError

import step_tasks
from cifar_tasks.errors import ConfigError, ModelSkipped, NothingToTrain, Stopped, StorageError
from cifar_tasks.promotion.limits import Limits
from cifar_tasks.steps.payloads import WorkflowRun
from cifar_tasks.steps.promotion_payloads import PromotionRequest, RollbackRequest
from tests.dags.parsing import DAGS, parse_elsewhere

FILES = sorted(path.stem for path in DAGS.glob("cifar10_*.py"))
HEAVY = ("torch", "torchvision", "mlflow", "numpy", "pandas", "sklearn", "boto3", "matplotlib", "optuna", "PIL")


@pytest.fixture(scope="module", params=FILES)
def dag(request: pytest.FixtureRequest) -> Any:
    return getattr(importlib.import_module(request.param), request.param)()


@pytest.mark.parametrize("file", FILES)
def test_parsing_imports_nothing_heavy_and_opens_no_connection(file):
    program = f"""
def refuse(event, arguments):
    if event in ("socket.connect", "sqlite3.connect"):
        raise AssertionError(f"{{event}} {{arguments}}")
sys.addaudithook(refuse)
import {file}
print(json.dumps([{file}.{file}().dag_id, *sorted(sys.modules)]))
"""
    dag_id, *loaded = json.loads(parse_elsewhere(program))
    assert dag_id == file
    assert file in loaded
    assert {name.partition(".")[0] for name in loaded}.isdisjoint(HEAVY)


def test_every_task_has_retries_that_wait_longer_each_time_a_time_limit_and_a_description(dag):
    for task in dag.tasks:
        assert task.retries == 2
        assert timedelta(seconds=10) <= task.retry_delay < task.max_retry_delay
        assert task.retry_exponential_backoff
        assert timedelta(0) < task.execution_timeout <= timedelta(days=1)
        assert len(task.doc_md) > 20


def test_every_field_of_a_form_has_a_title_and_an_explanation(dag):
    for name in dag.params:
        param = dag.params.get_param(name)
        assert param.schema["title"], name
        assert len(param.description) > 10, name
        assert "type" in param.schema, name


def test_airflow_parses_the_dag_files_alone():
    from airflow._shared.module_loading.file_discovery import find_path_from_directory

    parsed = {Path(path).name for path in find_path_from_directory(DAGS, ".airflowignore") if path.endswith(".py")}
    assert parsed == {path.name for path in DAGS.glob("cifar10_*.py")}


def test_no_dag_file_is_left_untested():
    tested = {path.name.removeprefix("test_") for path in Path(__file__).parent.glob("test_*.py")}
    assert {path.name for path in DAGS.glob("*.py")} <= tested


def test_the_form_demands_what_has_no_default_and_lets_other_texts_and_numbers_stay_empty():
    params = step_tasks.form_params(RollbackRequest.form_fields(), {"registered_model": "mine"})
    assert params["registered_model"].value == "mine"
    assert params["version"].resolve() is None
    assert params["version"].resolve(3) == 3
    for name, value in (("reason", None), ("reason", ""), ("version", 0), ("registered_model", "a/b")):
        with pytest.raises(ParamValidationError):
            params[name].resolve(value)
    request = step_tasks.form_request(PromotionRequest, {"registered_model": "mine", "version": 3, "reason": None})
    assert (request["reason"], request["limits"]) == ("", Limits().model_dump())
    assert step_tasks.form_params(PromotionRequest.form_fields(), {})["reason"].resolve() is None


def test_a_note_that_cannot_be_written_fails_no_task(monkeypatch, caplog):
    def fail(settings: Any, dag_id: str, run_id: str, lines: list[str]) -> None:
        assert (dag_id, run_id, lines) == ("dag", "run", ["- class &#60;b&#62; is worse"])
        raise StorageError("away")

    monkeypatch.setattr("cifar_tasks.deployment.airflow_api.set_note", fail)
    context = {"dag_run": SimpleNamespace(dag_id="dag", run_id="run")}
    monkeypatch.setattr(step_tasks, "get_current_context", lambda: context)
    step_tasks.show_in_note(["class <b> is worse"])
    assert caplog.messages == ["the note of this DAG run does not show the reasons: away"]


def test_a_page_that_a_person_wrote_does_not_fill_the_note(monkeypatch):
    noted = []
    monkeypatch.setattr("cifar_tasks.deployment.airflow_api.set_note", lambda *given: noted.extend(given[-1]))
    context = {"dag_run": SimpleNamespace(dag_id="dag", run_id="run")}
    monkeypatch.setattr(step_tasks, "get_current_context", lambda: context)
    step_tasks.show_in_note([f"bob rejected it: {'no ' * 600}never", "the champion stays"])
    assert [len(line) < 310 for line in noted] == [True, True]
    assert noted[0].startswith("- bob rejected it: no")
    assert noted[0].endswith("never")


@pytest.mark.parametrize(
    ("raised", "airflow_fails"),
    [
        (ConfigError("no"), AirflowFailException),
        (StorageError("away"), AirflowException),
        (Stopped("stopped"), AirflowException),
    ],
)
def test_only_what_a_retry_can_mend_is_retried(monkeypatch, raised, airflow_fails):
    def fail(step: str, *on_line: Any, **arguments: Any) -> None:
        raise raised

    monkeypatch.setattr("cifar_tasks.steps.process.run_step", fail)
    with pytest.raises(AirflowException) as caught:
        step_tasks.run_task_step("train:train_model")
    assert type(caught.value) is airflow_fails


@pytest.mark.parametrize("kind", [NothingToTrain, ModelSkipped])
def test_a_step_with_nothing_to_train_skips_its_task_and_says_why_in_the_note_and_in_xcom(monkeypatch, kind):
    def fail(step: str, *on_line: Any, **arguments: Any) -> None:
        raise kind("version 1 is the same")

    notes, pushed = [], {}
    monkeypatch.setattr("cifar_tasks.steps.process.run_step", fail)
    monkeypatch.setattr(step_tasks, "show_in_note", notes.append)
    context = {"ti": SimpleNamespace(xcom_push=pushed.__setitem__)}
    monkeypatch.setattr(step_tasks, "get_current_context", lambda: context)
    with pytest.raises(AirflowSkipException, match="version 1 is the same"):
        step_tasks.run_task_step("prepare:prepare_data")
    assert notes == [["version 1 is the same"]]
    assert pushed == {"skipped": "version 1 is the same"}


def test_an_error_stands_whole_in_one_line_of_the_task_log_before_airflow_s_traceback(monkeypatch, caplog):
    def fail(step: str, *on_line: Any, **arguments: Any) -> None:
        raise ConfigError("what is wrong\nand what to do")

    monkeypatch.setattr("cifar_tasks.steps.process.run_step", fail)
    with pytest.raises(AirflowFailException, match=r"^what is wrong and what to do$") as caught:
        step_tasks.run_task_step("train:train_model")
    assert caught.value.__suppress_context__
    (line,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert (line.getMessage(), line.exc_info) == ("what is wrong and what to do", None)


@pytest.mark.parametrize(
    ("state", "status"), [("failed", "FAILED"), ("success", "FINISHED"), ("running", None), (RuntimeError(), None)]
)
def test_a_task_that_stops_because_its_dag_run_was_marked_ends_the_mlflow_runs(monkeypatch, state, status):
    def stop(step: str, *on_line: Any, **arguments: Any) -> None:
        raise Stopped("stopped")

    def state_of_dag_run(dag_id: str, run_id: str) -> str:
        if isinstance(state, Exception):
            raise state
        return state

    started: list[tuple[str, dict[str, Any]]] = []
    context = {
        "dag_run": SimpleNamespace(dag_id="dag", run_id="run"),
        "ti": SimpleNamespace(get_dagrun_state=state_of_dag_run),
    }
    monkeypatch.setattr("cifar_tasks.steps.process.run_step", stop)
    monkeypatch.setattr("cifar_tasks.steps.process.start_step", lambda step, **given: started.append((step, given)))
    monkeypatch.setattr(step_tasks, "get_current_context", lambda: context)
    with pytest.raises(AirflowException, match="stopped"):
        step_tasks.run_task_step("train:train_model")
    ending = {"workflow": {"id": "dag/run", "name": "run"}, "status": status}
    assert started == ([("cifar_tasks.steps.report:end_workflow", ending)] if status else [])


@pytest.mark.parametrize(
    ("arguments", "lines", "urls"),
    [
        ({"plan": {"data": {"mlflow_url": "parent"}}}, ["MLflow run: http://m/1", "epoch 1"], ["parent", "http://m/1"]),
        ({"trained": {"plan": {"data": {"mlflow_url": "parent"}}, "mlflow_url": "child"}}, [], ["child"]),
        ({"plans": [{"data": {"mlflow_url": "parent"}}], "results": []}, ["a line"], ["parent"]),
        ({"request": {"source": "digits"}}, ["MLflow run: http://m/0"], ["http://m/0"]),
        ({"request": {"source": "digits"}}, ["a line"], []),
    ],
)
def test_a_task_that_fails_shows_the_mlflow_run_that_it_worked_on(monkeypatch, arguments, lines, urls):
    def fail(step: str, on_line: Any, **arguments: Any) -> None:
        for line in lines:
            on_line(line)
        raise ConfigError("no")

    pushed: list[tuple[str, str]] = []
    context = {"ti": SimpleNamespace(xcom_push=lambda key, value: pushed.append((key, value)))}
    monkeypatch.setattr("cifar_tasks.steps.process.run_step", fail)
    monkeypatch.setattr(step_tasks, "get_current_context", lambda: context)
    with pytest.raises(AirflowFailException):
        step_tasks.run_task_step("any:step", **arguments)
    assert pushed == [("mlflow_url", url) for url in urls]


def test_each_address_that_a_step_logs_or_is_given_is_a_button(monkeypatch):
    def answer(step: str, on_line: Any, **arguments: Any) -> dict[str, Any]:
        titles = {"MLflow run": "a", "Model version": "b", "Comparison": "c", "Report": "d", "the Report": "e"}
        for title, page in titles.items():
            on_line(f"{title}: https://host/{page}")
        for name in ("Report: javascript:alert(1)", "Report: x: 2 classes", "Report: http://host/f two words"):
            on_line(name)  # of a source or a class, as a user has chosen it
        return {}

    pushed: list[tuple[str, str]] = []
    context = {"ti": SimpleNamespace(xcom_push=lambda key, value: pushed.append((key, value)))}
    monkeypatch.setattr("cifar_tasks.steps.process.run_step", answer)
    monkeypatch.setattr(step_tasks, "get_current_context", lambda: context)
    step_tasks.run_task_step("promote:record", proposal={"mlflow_url": "run", "comparison_url": "page"})
    given = [("mlflow_url", "run"), ("comparison_url", "page")]
    logged = {"mlflow_url": "a", "version_url": "b", "comparison_url": "c", "report_url": "d"}
    assert pushed == given + [(key, f"https://host/{page}") for key, page in logged.items()]


@pytest.mark.parametrize("person", ["admin", None])
def test_a_workflow_run_names_the_person_who_started_it(monkeypatch, person):
    run = SimpleNamespace(dag_id="cifar10_rollback", run_id="manual", triggering_user_name=person)
    monkeypatch.setattr(step_tasks, "get_current_context", lambda: {"dag_run": run})
    started = WorkflowRun.model_validate(step_tasks.workflow_run())
    assert (started.id, started.by) == ("cifar10_rollback/manual", person)
