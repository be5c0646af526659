"""DAG runs on a stack whose services are killed, a task that is stopped in Airflow, a run that is refused."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import psutil
import pytest
import requests
from mlflow import MlflowClient

from cifar_tasks.cli.dag_run import DagRun, trigger
from cifar_tasks.cli.watch import TRAIN
from cifar_tasks.deployment import stack as embedded
from cifar_tasks.deployment.dag_ids import PROMOTION_DAG, TRAINING_DAG
from cifar_tasks.deployment.stack.supervisord import marked
from cifar_tasks.settings import Settings
from cifar_tasks.storage.s3 import S3Store
from cifar_tasks.tracking import model_registry, runs
from cifar_tasks.tracking.saved_model import SavedModel
from tests.conftest import RunningStack
from tests.dags.test_dag_run import buttons, runs_of
from tests.integration.test_stack import command_line, pids
from tests.waiting import wait_for_end, wait_for_success, wait_until

if TYPE_CHECKING:
    from airflow_client.client import ApiClient


@pytest.fixture
def client(connected: RunningStack) -> MlflowClient:
    return runs.mlflow_client()


def test_a_killed_service_is_seen_and_repaired_and_its_children_do_not_stay(stack: RunningStack) -> None:
    before = pids(stack.home)
    killed = psutil.Process(before["mlflow"])
    children = killed.children(recursive=True)
    assert children
    kill(killed)
    seen = {service.name: service for service in embedded.status(stack.home)}
    assert seen["mlflow"].state == "exited"
    assert not seen["mlflow"].answering

    reported: list[str] = []
    embedded.up(stack.home, reported.append)
    assert len(reported) == 1
    assert reported[0].startswith("mlflow ready")
    assert all(service.answering for service in embedded.status(stack.home))
    assert not any(child.is_running() for child in children)
    assert {name for name, pid in pids(stack.home).items() if pid != before[name]} == {"mlflow"}


def test_the_heartbeat_of_a_killed_scheduler_does_not_count_for_the_next_one(stack: RunningStack) -> None:
    kill(psutil.Process(pids(stack.home)["airflow-scheduler"]))
    began = datetime.now(UTC)
    embedded.up(stack.home, print)
    health = requests.get(f"{stack.airflow_url}/api/v2/monitor/health", timeout=30).json()["scheduler"]
    assert datetime.fromisoformat(health["latest_scheduler_heartbeat"]) > began


def kill(process: psutil.Process) -> None:
    process.kill()
    process.wait(timeout=10)


def training_of(client: MlflowClient, run: DagRun) -> psutil.Process:
    """The process of this stack that trains the CNN, once it has logged an epoch."""
    wait_until(lambda: any(r.data.metrics for r in runs_of(client, run, "cnn")), 180)
    ours = marked(Settings().home)
    (process,) = (process for process in ours if "cifar_tasks.steps.train:train_model" in command_line(process))
    return process


def test_a_killed_training_resumes_in_airflow_s_retry(client, pictures, airflow: "ApiClient"):
    conf = {"source": str(pictures), "models": ["cnn"], "epochs": 40, "registered_model": "killed-in-airflow"}
    run = trigger(airflow, conf)
    kill(training_of(client, run))
    wait_for_success(run, 400)
    assert {str(task.task_id): task.try_number for task in run.tasks()}[TRAIN] == 2
    (trained,) = runs_of(client, run, "cnn")
    assert trained.info.status == "FINISHED"
    steps = {metric.step for metric in client.get_metric_history(trained.info.run_id, "validation_loss")}
    assert steps == set(range(1, max(steps) + 1))  # it may end before 40, when it learns no more
    (row,) = run.result("report")["rows"]
    (version,) = client.search_model_versions("name = 'killed-in-airflow'")
    assert (int(version.version), version.run_id) == (row["version"], trained.info.run_id)
    check_a_second_try_makes_nothing_new(client, run)


def check_a_second_try_makes_nothing_new(client: MlflowClient, run: DagRun) -> None:
    """Clear the training in Airflow's UI: it and all tasks after it run once more."""

    def everything() -> tuple[Any, ...]:
        made = {found.info.run_id for kind in ("all", "cnn") for found in runs_of(client, run, kind)}
        versions = {v.version for v in client.search_model_versions("name = 'killed-in-airflow'")}
        experiment = runs.experiment_id(client, Settings().experiment)
        models = {model.model_id for model in client.search_logged_models([experiment])}
        return made, versions, models, set(S3Store(Settings().bucket).keys("runs/"))

    before, rows = everything(), run.result("report")["rows"]
    clear(run, TRAIN, downstream=True)
    wait_for_success(run, 180)
    assert {task.try_number for task in run.tasks() if task.task_id == "report"} == {2}
    assert everything() == before
    assert run.result("report")["rows"] == rows


def clear(run: DagRun, task: str, *, downstream: bool) -> None:
    """Have a task of the first model, and those after it, run again."""
    from airflow_client.client.api.task_instance_api import TaskInstanceApi
    from airflow_client.client.models.clear_task_instances_body import ClearTaskInstancesBody
    from airflow_client.client.models.clear_task_instances_body_task_ids_inner import (
        ClearTaskInstancesBodyTaskIdsInner,
    )

    body = ClearTaskInstancesBody(
        dry_run=False,
        dag_run_id=run.run_id,
        task_ids=[ClearTaskInstancesBodyTaskIdsInner([task, 0])],
        include_downstream=downstream,
        only_failed=False,
        reset_dag_runs=True,
    )
    TaskInstanceApi(run.client).post_clear_task_instances(run.dag_id, body)


def test_an_evaluation_a_registration_and_a_promotion_that_failed_keep_their_buttons(client, pictures, airflow):
    name = "fails-later"
    run = trigger(airflow, {"source": str(pictures), "models": ["cnn"], "epochs": 1, "registered_model": name})
    wait_for_success(run, 240)
    (row,), report = run.result("report")["rows"], run.result("report")["report_url"]
    version = client.get_model_version(name, str(row["version"]))
    delete_evaluation_and_damage_program(model_registry.saved_model_of(version))

    for task in ("model.register", "model.evaluate"):  # whose tasks before it have succeeded
        clear(run, task, downstream=False)
        # A run of which Airflow is just about to see the end would end, and the next cleared task never start.
        wait_for_end(run, 120)
        assert state_of(run, task) == "failed"
        shown = buttons(run, task, 0)
        assert (shown["MLflow run"], shown["Report"]) == (row["mlflow_url"], report), task
        assert "/plugin/models?" in shown["Comparison"], task

    promotion = trigger(airflow, {"registered_model": name, "version": row["version"]}, dag_id=PROMOTION_DAG)
    wait_for_end(promotion, 120)
    assert state_of(promotion, "propose") == "failed"
    shown = buttons(promotion, "propose")
    assert shown["MLflow run"] == row["mlflow_url"]
    assert f"/versions/{row['version']}?" in shown["Model version"]


def state_of(run: DagRun, task: str) -> str | None:
    return next((found.state.value for found in run.tasks() if found.task_id == task and found.state), None)


def delete_evaluation_and_damage_program(saved: SavedModel) -> None:
    store, artifacts = S3Store(Settings().bucket), S3Store("mlflow")
    stored = [key for key in store.keys("evaluations/") if f"/{saved.sha256[:16]}/" in key]
    assert stored
    for key in stored:
        store.delete(key)
    (program,) = [key for key in artifacts.keys("") if key.endswith("model.pt2") and saved.model_id in key]
    artifacts.put(program, artifacts.get(program)[:-1000])


def test_a_task_stopped_in_the_ui_stops_its_training_within_10_seconds(client, stack, pictures, airflow: "ApiClient"):
    from airflow_client.client.api.task_instance_api import TaskInstanceApi
    from airflow_client.client.models.patch_task_instance_body import PatchTaskInstanceBody

    run = trigger(airflow, {"source": str(pictures), "models": ["cnn"], "epochs": 1000})
    process = training_of(client, run)
    assert process.ppid() != 1
    TaskInstanceApi(airflow).patch_task_instance(
        TRAINING_DAG, run.run_id, TRAIN, PatchTaskInstanceBody(new_state="failed"), map_index=0
    )
    wait_until(lambda: not process.is_running(), 60)
    wait_for_end(run, 30)
    assert [r.info.status for r in runs_of(client, run, "cnn")] == ["KILLED"]
    wait_until(lambda: runs_of(client, run, "all")[0].info.status == "FAILED", 30)
    shown = buttons(run, TRAIN, 0)
    assert runs_of(client, run, "cnn")[0].info.run_id in shown["MLflow run"]
    state = urlencode({"dag_id": TRAINING_DAG, "run_id": run.run_id})
    assert shown["Comparison"] == f"{stack.airflow_url}/plugin/models?{state}"


def test_a_run_that_is_refused_fails_in_one_try_with_one_line_and_shows_its_mlflow_run(
    client, stack, airflow: "ApiClient"
):
    run = trigger(airflow, {"source": "s3://no-such-bucket/pictures.zip"})
    wait_for_end(run, 60)
    (prepare,) = [task for task in run.tasks() if task.task_id == "prepare"]
    assert (prepare.state.value, prepare.try_number) == ("failed", 1)
    wait_until(lambda: [parent.info.status for parent in runs_of(client, run, "all")] == ["FAILED"], 30)
    links = f"{stack.airflow_url}/api/v2/dags/{TRAINING_DAG}/dagRuns/{run.run_id}/taskInstances/prepare"
    headers = {"Authorization": f"Bearer {airflow.configuration.access_token}"}
    shown = requests.get(f"{links}/links", headers=headers, timeout=10).json()["extra_links"]["MLflow run"]
    assert runs_of(client, run, "all")[0].info.run_id in shown
    log = requests.get(f"{links}/logs/1", headers=headers, timeout=10).json()["content"]
    (first, *_) = [line for line in log if line.get("level") == "error"]
    assert first["event"].startswith("storage refused s3://no-such-bucket/pictures.zip")
    assert "error_detail" not in first


def test_tasks_start_after_all_idle_workers_of_the_executor_were_killed(client, stack, airflow: "ApiClient"):
    idle = [process for process in marked(stack.home) if "LocalExecutor: <idle>" in command_line(process)]
    assert idle
    for worker in idle:
        kill(worker)
    run = trigger(airflow, {"source": "s3://no-such-bucket/pictures.zip"})
    wait_for_end(run, 60)
    assert {str(task.task_id): task.state.value for task in run.tasks()}["prepare"] == "failed"


def test_a_task_whose_worker_is_killed_before_it_starts_is_tried_again(client, stack, airflow: "ApiClient"):
    def busy() -> list[psutil.Process]:
        workers = (process for process in marked(stack.home) if "LocalExecutor: " in command_line(process))
        return [process for process in workers if "<idle>" not in command_line(process)]

    run = trigger(airflow, {"source": "s3://no-such-bucket/pictures.zip"})
    # Until Airflow's API server answers, a worker that has taken a task cannot start it.
    server = psutil.Process(pids(stack.home)["airflow-api-server"])
    server.suspend()
    try:
        wait_until(lambda: busy() != [], 30)
        for worker in busy():
            kill(worker)
    finally:
        server.resume()
    wait_for_end(run, 120)
    (prepare,) = [task for task in run.tasks() if task.task_id == "prepare"]
    assert (prepare.state.value, prepare.try_number) == ("failed", 2)


def test_a_task_that_starts_while_the_api_server_restarts_needs_no_second_try(client, stack, airflow: "ApiClient"):
    run = trigger(airflow, {"source": "s3://no-such-bucket/pictures.zip"})
    kill(psutil.Process(pids(stack.home)["airflow-api-server"]))
    embedded.up(stack.home, print)
    wait_for_end(run, 120)
    (prepare,) = [task for task in run.tasks() if task.task_id == "prepare"]
    assert (prepare.state.value, prepare.try_number) == ("failed", 1)


def test_one_model_alone_is_trained_and_promoted_too(client, pictures, airflow: "ApiClient"):
    conf = {"source": str(pictures), "models": ["cnn"], "epochs": 1, "registered_model": "alone"}
    run = trigger(airflow, conf)
    wait_for_success(run, 180)
    assert [row["model"] for row in run.result("report")["rows"]] == ["cnn"]
    skipped = {str(task.task_id) for task in run.tasks() if task.state.value == "skipped"}
    assert skipped == {"tuning.create_studies", "tuning.run_trials"}
    # Another DAG promotes it.
    wait_until(lambda: model_registry.version_with_alias(client, "alone", model_registry.CHAMPION) is not None, 180)
