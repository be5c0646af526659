"""The DAG as Airflow reads it: what it imports, what its form refuses, how its tasks are run."""

import importlib.util
import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from cifar_tasks.cli.demo import FLOW

from cifar_tasks.config import OVERRIDES
from cifar_tasks.settings import PROJECT

SEARCH = ("tune", "trials", "search_minutes", "search_workers")
DAG_FILE = PROJECT / "dags" / "cifar10_training.py"
HEAVY = ("torch", "torchvision", "mlflow", "numpy", "pandas", "sklearn", "boto3", "matplotlib", "optuna", "PIL")


@pytest.fixture(scope="module")
def dag():
    spec = importlib.util.spec_from_file_location("cifar10_training", DAG_FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.cifar10_training()


def parse_elsewhere(program: str, **variables: str) -> str:
    """What a fresh interpreter prints that imports the DAG file, without any stack around."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "CIFAR", "AWS"))
    }
    code = f"import json, sys; sys.path.insert(0, {str(DAG_FILE.parent)!r}); import airflow.sdk; {program}"
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
    code = f"import sys; sys.path.insert(0, {str(DAG_FILE.parent)!r}); import airflow.sdk\n{program}"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.strip() == "cifar10_training"


def test_the_flow_is_prepare_plan_a_lane_for_each_model_promote_report(dag):
    downstream = {task.task_id: set(task.downstream_task_ids) for task in dag.tasks}
    assert "whether_to_tune" in downstream["plan"]
    assert "model.train" in downstream["settle"]
    assert "model.evaluate" in downstream["model.train"]
    assert "model.register" in downstream["model.evaluate"]
    assert {"promote", "report"} <= downstream["model.register"]
    assert downstream["promote"] == {"report"}
    assert downstream["report"] == set()


def test_either_side_of_the_branch_leads_to_the_training(dag):
    downstream = {task.task_id: set(task.downstream_task_ids) for task in dag.tasks}
    assert downstream["whether_to_tune"] == {"remember", "search.open_studies"}
    assert downstream["search.open_studies"] == {"search.worker"}
    assert downstream["search.worker"] == {"search.choose"}
    assert downstream["search.choose"] == downstream["remember"] == {"settle"}
    assert dag.get_task("settle").trigger_rule == "none_failed_min_one_success"


def test_the_terminal_s_table_knows_every_task(dag):
    assert set(FLOW) == set(dag.task_ids)


def test_heavy_tasks_wait_for_a_gpu_slot_and_all_have_retries_timeouts_and_a_description(dag):
    for task in dag.tasks:
        on_gpu = task.task_id in ("search.worker", "model.train", "model.evaluate", "promote")  # those that need torch
        assert (task.pool, task.queue) == (("gpu", "gpu") if on_gpu else ("default_pool", "default")), task.task_id
        assert task.retries == 2
        assert timedelta(0) < task.execution_timeout <= timedelta(days=1)
        assert len(task.doc_md) > 20
    assert dag.get_task("model.train").execution_timeout > dag.get_task("prepare").execution_timeout


def test_the_form_explains_every_field(dag):
    assert {"source", "models", "profile", "registered_model", *SEARCH, *OVERRIDES} == set(dag.params)
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
        ("image_size", 16),
        ("pretrained", "maybe"),
        ("seed", -1),
        ("flip", True),
        ("models", "vgg"),
        ("profile", "huge"),
        ("source", ""),
        ("registered_model", "a/b"),
        ("tune", "vgg"),
        ("trials", 0),
        ("search_minutes", 1.5),
        ("search_workers", -1),
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
        "print(json.dumps([str(d.schedule), d.catchup, d.params['source'], d.params['models'], d.params['profile']]))"
    )
    printed = parse_elsewhere(
        program, CIFAR_SCHEDULE="0 3 * * *", CIFAR_SOURCE="s3://b/k.zip", CIFAR_MODELS="cnn", CIFAR_PROFILE="full"
    )
    assert json.loads(printed) == ["0 3 * * *", False, "s3://b/k.zip", "cnn", "full"]


def test_the_picture_on_the_dag_page_names_every_task(dag):
    assert "/cifar/flow.svg" in dag.doc_md
    picture = (PROJECT / "plugins" / "flow.svg").read_text()
    for task in dag.tasks:
        assert f">{task.task_id.rpartition('.')[2]}<" in picture


def test_no_dag_file_is_left_untested():
    assert {path.name for path in Path(PROJECT / "dags").glob("*.py")} == {"cifar10_training.py"}
