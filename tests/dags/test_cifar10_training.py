"""The DAG as Airflow reads it: what it imports, what its form refuses, how its tasks are run."""

import inspect
import json
import os
import subprocess
import sys
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

import cifar10_training
from cifar_tasks.cli import local_run
from cifar_tasks.config import Overrides
from cifar_tasks.settings import PROJECT
from cifar_tasks.steps.payloads import RunRequest, WorkflowRun

DAGS = PROJECT / "dags"
HEAVY = ("torch", "torchvision", "mlflow", "numpy", "pandas", "sklearn", "boto3", "matplotlib", "optuna", "PIL")


@pytest.fixture(scope="module")
def dag():
    return cifar10_training.cifar10_training()


def parse_elsewhere(program: str, **variables: str) -> str:
    """What a fresh interpreter prints that imports the DAG file, without any stack around."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "CIFAR", "AWS"))
    }
    code = f"import json, sys; sys.path.insert(0, {str(DAGS)!r}); import airflow.sdk; {program}"
    answer = subprocess.run(
        [sys.executable, "-c", code], env={**environment, **variables}, capture_output=True, text=True, check=True
    )
    return answer.stdout.splitlines()[-1]


def test_parsing_imports_nothing_heavy():
    loaded = parse_elsewhere(
        "before = set(sys.modules); import cifar10_training; print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    new = {name.partition(".")[0] for name in json.loads(loaded)}
    assert "cifar10_training" in new
    assert new.isdisjoint(HEAVY)


def test_parsing_opens_no_connection():
    program = """
def refuse(event, arguments):
    if event in ("socket.connect", "sqlite3.connect"):
        raise AssertionError(f"{event} {arguments}")
sys.addaudithook(refuse)
import cifar10_training
print(cifar10_training.cifar10_training().dag_id)
"""
    code = f"import sys; sys.path.insert(0, {str(DAGS)!r}); import airflow.sdk\n{program}"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.strip() == "cifar10_training"


def test_the_flow_is_one_line_with_a_branch_around_the_search(dag):
    assert {task.task_id: sorted(task.downstream_task_ids) for task in dag.tasks} == {
        "prepare": ["plan_training"],
        "plan_training": ["branch_on_tuning"],
        "branch_on_tuning": ["select_params", "tuning.create_studies"],
        "tuning.create_studies": ["tuning.run_trials"],
        "tuning.run_trials": ["select_params"],
        "select_params": ["model.train"],
        "model.train": ["model.evaluate"],
        "model.evaluate": ["model.register"],
        "model.register": ["report"],
        "report": ["propose"],
        "propose": ["record"],
        "record": [],
    }
    assert dag.get_task("select_params").trigger_rule == "none_failed_min_one_success"


@pytest.mark.parametrize(
    ("tune", "leads_to"),
    [([], "select_params"), (["cnn"], "tuning.create_studies"), (["a", "b"], "tuning.create_studies")],
)
def test_the_branch_leads_to_the_search_only_if_the_form_asks_for_one(dag, monkeypatch, tune, leads_to):
    pushed = {}
    context = {"ti": SimpleNamespace(xcom_push=pushed.__setitem__)}
    monkeypatch.setattr(cifar10_training, "get_current_context", lambda: context)
    branch = dag.get_task("branch_on_tuning").python_callable
    assert branch(plans=["plan"], params={"tune": tune}) == leads_to
    assert pushed == {"plans": ["plan"]}


def test_the_command_line_does_the_same_steps_in_the_same_order(dag, monkeypatch):
    """`cifar run` and the DAG are two ways through one flow."""
    of_dag = steps_of(dag, monkeypatch)
    called: list[str] = []

    def recorded(name: str, result: Any) -> Any:
        return lambda *values: called.append(name) or result

    names = [step.partition(":")[2] for step in of_dag]
    results = {"plan_training": [1], "create_studies": [1], "select_params": [1]}
    for name in names:
        monkeypatch.setattr(local_run, name, recorded(name, results.get(name)))
    local_run.run_steps(WorkflowRun(id="cli/name", name="name"), SimpleNamespace(tune=["cnn"]))
    assert called == names


def steps_of(dag: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The step that each task runs, in the order of the flow."""
    called: list[str] = []
    monkeypatch.setattr(cifar10_training, "run_task_step", lambda step, **_: called.append(step))
    monkeypatch.setattr(cifar10_training, "workflow_run", dict)
    monkeypatch.setattr(cifar10_training, "form_request", lambda kind, params: {})
    monkeypatch.setattr(cifar10_training, "show_name", lambda name: None)
    for task in dag.topological_sort():
        function = task.python_callable if hasattr(task, "python_callable") else task.operator_class.python_callable
        if task.task_id != "branch_on_tuning":
            arguments = dict.fromkeys(inspect.signature(function).parameters, ANYTHING)
            function(**arguments)
    return called


class _Anything(dict):
    """Stands for any argument of a task."""

    def __missing__(self, key: str) -> "_Anything":
        return self


ANYTHING = _Anything()


def test_a_retry_waits_and_waits_longer_each_time(dag):
    for task in dag.tasks:
        assert timedelta(seconds=10) <= task.retry_delay < task.max_retry_delay
        assert task.retry_exponential_backoff


def test_the_form_s_values_become_the_request_of_the_steps(dag, monkeypatch):
    given = {}
    monkeypatch.setattr(cifar10_training, "workflow_run", lambda: {"id": "dag/run", "name": "run"})
    monkeypatch.setattr(cifar10_training, "run_task_step", lambda step, **arguments: given.update(arguments))
    params = {**dag.params.validate(), "seed": 7, "epochs": 2, "flip": "off", "tune": ["cnn"]}
    dag.get_task("prepare").python_callable(params=params)
    request = RunRequest.model_validate_json(json.dumps(given["request"]), strict=True)
    assert (request.models, request.tune, request.image_size) == (["cnn", "resnet50"], ["cnn"], 32)
    assert request.overrides.given() == {"seed": 7, "epochs": 2, "flip": False}


def test_a_whole_number_with_a_point_is_that_number(dag, monkeypatch):
    """To JSON 2.0 is an integer: Airflow's form accepts it."""
    params = {**dag.params.validate(), "seed": 1.0, "epochs": dag.params.get_param("epochs").resolve(2.0)}
    request = cifar10_training.form_request(RunRequest, params)
    overrides = RunRequest.model_validate_json(json.dumps(request), strict=True).overrides.given()
    assert overrides == {"epochs": 2, "seed": 1}


def test_keys_that_the_form_does_not_have_fail_the_first_task_at_once_and_are_named(dag):
    """Airflow passes on whatever keys a run that is triggered by API brings."""
    params = {**dag.params.validate(), "foo": 1, "Epochs": 3, "overrides": {"epochs": 3}}
    with pytest.raises(AirflowFailException) as refused:
        dag.get_task("prepare").python_callable(params=params)
    message = str(refused.value)
    assert "'foo', 'Epochs' (did you mean epochs?), 'overrides'; its fields: batch_size, epochs" in message


def test_all_values_that_only_the_first_task_can_refuse_are_named_at_once(dag):
    params = {**dag.params.validate(), "registered_model": "a\n", "tune": ["cnn"], "models": ["resnet50"]}
    with pytest.raises(AirflowFailException) as refused:
        dag.get_task("prepare").python_callable(params=params)
    assert [line.partition(":")[0] for line in str(refused.value).splitlines()] == ["registered_model", "tune"]


def test_heavy_tasks_wait_for_a_gpu_slot_and_all_have_retries_timeouts_and_a_description(dag):
    for task in dag.tasks:
        on_gpu = task.task_id in (
            "tuning.run_trials",
            "model.train",
            "model.evaluate",
            "propose",
        )  # those that need torch
        assert (task.pool, task.queue) == (("gpu", "gpu") if on_gpu else ("default_pool", "default")), task.task_id
        assert task.retries == 2
        assert timedelta(0) < task.execution_timeout <= timedelta(days=1)
        assert len(task.doc_md) > 20
    assert dag.get_task("model.train").execution_timeout > dag.get_task("prepare").execution_timeout


def test_the_form_explains_every_field(dag):
    fields = {*RunRequest.model_fields} - {"overrides"}
    assert {*fields, *Overrides.model_fields} == set(dag.params)
    for name in dag.params:
        param = dag.params.get_param(name)
        assert param.schema["title"], name
        assert len(param.description) > 10, name
        assert "type" in param.schema, name


def test_the_form_s_own_values_are_accepted(dag):
    assert dag.params.validate()["profile"] == "demo"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("epochs", 1.5),
        ("batch_size", 1),
        ("learning_rate", 0),
        ("learning_rate", "fast"),
        ("image_size", 15),
        ("image_size", 513),
        ("resize", "stretch"),
        ("input_size", 513),
        ("pretrained", "maybe"),
        ("seed", -1),
        ("flip", True),
        ("models", "cnn"),
        ("models", ["vgg"]),
        ("models", []),
        ("models", ["cnn", "cnn"]),
        ("profile", "huge"),
        ("source", ""),
        ("source", "pictures.zip"),
        ("source", "./pictures"),
        ("source", "s3:///key"),
        ("source", "https://host/pictures.zip"),
        ("registered_model", "a/b"),
        ("tune", ["vgg"]),
        ("trials", 0),
        ("search_minutes", 1.5),
        ("search_workers", -1),
        ("search_workers", 600),
    ],
)
def test_the_form_refuses_a_bad_value(dag, name, value):
    param = dag.params.get_param(name)
    with pytest.raises(ValueError, match="Failed validating"):
        param.resolve(value)


def test_it_runs_when_triggered_only_unless_a_schedule_is_set(dag):
    assert dag.schedule is None
    assert not dag.catchup
    assert dag.max_active_runs == 1


def test_the_settings_give_schedule_and_values():
    program = (
        "import cifar10_training; d = cifar10_training.cifar10_training(); "
        "t = d.timetable; "
        "values = [d.params[name] for name in ('source', 'models', 'profile')]; "
        "print(json.dumps([t.expression, str(t.timezone), d.catchup, *values]))"
    )
    runs = {"CIFAR_SOURCE": "s3://b/k.zip", "CIFAR_MODELS": "cnn", "CIFAR_PROFILE": "full"}
    printed = parse_elsewhere(program, CIFAR_SCHEDULE="0 3 * * *", CIFAR_SCHEDULE_TIMEZONE="Europe/Berlin", **runs)
    assert json.loads(printed) == ["0 3 * * *", "Europe/Berlin", False, "s3://b/k.zip", ["cnn"], "full"]
