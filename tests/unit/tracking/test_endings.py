"""Which MLflow runs are ended when a workflow run ends, or is found dead by the next one."""

import hashlib
from pathlib import Path

import pytest
from mlflow import MlflowClient

from cifar_tasks.tracking.endings import end_dead_runs, end_runs, store_id, workflow_lease
from cifar_tasks.tracking.runs import MODEL, SEARCHED_IN, STORE, STUDY, WORKFLOW
from tests.stores import InMemoryStore

AIRFLOW = "http://airflow.example:8080"


@pytest.fixture
def experiment(mlflow_client: MlflowClient, tmp_path: Path) -> str:
    return str(mlflow_client.create_experiment(str(tmp_path)))


def run(client: MlflowClient, experiment: str, workflow: str, model: str = "all", **tags: str) -> str:
    made = client.create_run(experiment, tags={WORKFLOW: workflow, MODEL: model, **tags})
    return str(made.info.run_id)


def status(client: MlflowClient, run_id: str) -> str:
    return str(client.get_run(run_id).info.status)


def test_parent_training_study_and_trial_end_together_and_what_has_ended_or_is_another_s_stays(
    mlflow_client, experiment
):
    mine = [run(mlflow_client, experiment, "cli/a", model) for model in ("all", "cnn")]
    for model in ("search cnn", "cnn"):
        made = mlflow_client.create_run(experiment, tags={SEARCHED_IN: "cli/a", MODEL: model, STUDY: "cnn-1"})
        mine.append(made.info.run_id)
    finished, other = run(mlflow_client, experiment, "cli/a", "resnet50"), run(mlflow_client, experiment, "cli/b")
    mlflow_client.set_terminated(finished, "FINISHED")
    end_runs(mlflow_client, experiment, "cli/a", "FAILED")
    assert {status(mlflow_client, run_id) for run_id in mine} == {"FAILED"}
    assert (status(mlflow_client, finished), status(mlflow_client, other)) == ("FINISHED", "RUNNING")


@pytest.mark.parametrize(("age", "ends"), [(0, "RUNNING"), (61, "KILLED"), (None, "KILLED")])
def test_a_run_of_the_command_line_is_dead_once_its_lease_has_expired(mlflow_client, experiment, age, ends):
    store = InMemoryStore()
    parent, child = (
        run(mlflow_client, experiment, "cli/it's", model, **{STORE: store_id(store)}) for model in ("all", "cnn")
    )
    if age is not None:
        store.put(workflow_lease("cli/it's"), b"{}")
        store.written[workflow_lease("cli/it's")] -= age
    end_dead_runs(mlflow_client, experiment, store, "cli/a")
    assert {status(mlflow_client, run_id) for run_id in (parent, child)} == {ends}


def test_a_run_of_another_deployment_on_the_same_server_is_left_alone(mlflow_client, experiment):
    """Its lease lies in another bucket, which has the same name."""
    other = run(mlflow_client, experiment, "cli/other", **{STORE: store_id(InMemoryStore())})
    end_dead_runs(mlflow_client, experiment, InMemoryStore(), "cli/next")
    assert status(mlflow_client, other) == "RUNNING"


def test_a_store_keeps_its_id_and_two_that_make_it_at_once_have_one(monkeypatch):
    store, other = InMemoryStore(), InMemoryStore()
    assert store_id(store) == store_id(store) != store_id(other)
    late = InMemoryStore()
    ids = []

    def put_after_another(*arguments):
        monkeypatch.undo()
        ids.append(store_id(late))
        return late.put_if(*arguments)

    monkeypatch.setattr(late, "put_if", put_after_another)
    assert [store_id(late)] == ids


@pytest.mark.parametrize(
    ("workflow", "url", "next_one", "ends"),
    [
        ("dag/1", f"{AIRFLOW}/dags/dag/runs/1", "dag/2", "KILLED"),
        ("dag/1", f"{AIRFLOW}/dags/dag/runs/1", "dag/1", "RUNNING"),
        ("dag/1", "http://another:8080/dags/dag/runs/1", "dag/2", "RUNNING"),
        ("dag/1", f"{AIRFLOW}/dags/dag/runs/1", "cli/2", "RUNNING"),
        ("dag/1", f"{AIRFLOW}/dags/dag/runs/1", "dag2/2", "RUNNING"),
    ],
)
def test_a_dag_run_is_dead_when_the_next_one_of_the_same_dag_and_airflow_begins(
    mlflow_client, experiment, monkeypatch, workflow, url, next_one, ends
):
    monkeypatch.setenv("CIFAR_AIRFLOW_URL", AIRFLOW)
    parent = run(mlflow_client, experiment, workflow, **{"airflow.dag_run_url": url})
    child = run(mlflow_client, experiment, workflow, "cnn")
    end_dead_runs(mlflow_client, experiment, InMemoryStore(), next_one)
    assert {status(mlflow_client, run_id) for run_id in (parent, child)} == {ends}


def test_the_lease_of_a_workflow_run_lies_beside_its_results():
    """Under 16 digits of the digest of its id, as `steps/train.py` has them."""
    assert workflow_lease("cli/a") == f"runs/{hashlib.sha256(b'cli/a').hexdigest()[:16]}/lease.json"
