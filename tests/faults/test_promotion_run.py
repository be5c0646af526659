"""The promotion and rollback DAGs on the real stack: started by a training, by a person, answered, rolled back."""

import re
import time

import pytest
from airflow_client.client.api.dag_run_api import DagRunApi
from airflow_client.client.api.task_instance_api import TaskInstanceApi
from airflow_client.client.exceptions import ApiException
from airflow_client.client.models.update_hitl_detail_payload import UpdateHITLDetailPayload
from mlflow import MlflowClient

from cifar_tasks.cli.dag_run import DagRun, trigger
from cifar_tasks.cli.watch import AWAITING_INPUT
from cifar_tasks.deployment.dag_ids import PROMOTION_DAG, ROLLBACK_DAG
from cifar_tasks.evaluation.names import markdown
from cifar_tasks.settings import Settings
from cifar_tasks.steps.promotion_payloads import Promotion
from cifar_tasks.steps.report_payloads import RunReport
from cifar_tasks.storage.promotion_log import Entry, read_log
from cifar_tasks.storage.s3 import S3Store
from cifar_tasks.tracking import model_registry, runs
from tests.conftest import RunningStack
from tests.waiting import wait_for_end, wait_until

NAME = "cifar10-classifier"
SETTLING_SECONDS = 3
"""Airflow asks a second time where an answer comes before the scheduler knows that the task is parked."""


@pytest.fixture
def client(connected: RunningStack) -> MlflowClient:
    return runs.mlflow_client()


def registered_as(client: MlflowClient, name: str, number: int) -> int:
    """A version of the training, registered once more under a name that has no champion."""
    version = client.get_model_version(NAME, str(number))
    saved = model_registry.saved_model_of(version)
    return model_registry.register(client, name, saved, version.run_id, version.tags)


def states(run: DagRun) -> dict[str, str]:
    return {str(task.task_id): task.state.value for task in run.tasks() if task.state}


def wait_for_person(run: DagRun) -> None:
    wait_until(lambda: states(run).get("approve") == AWAITING_INPUT, 240)
    time.sleep(SETTLING_SECONDS)


def answer(run: DagRun, option: str, reason: str | None = None) -> None:
    given = {} if reason is None else {"answer_reason": reason}
    payload = UpdateHITLDetailPayload(chosen_options=[option], params_input=given)
    TaskInstanceApi(run.client).update_hitl_detail(run.dag_id, run.run_id, "approve", -1, payload)


def ended(run: DagRun, task: str = "record") -> Promotion:
    wait_for_end(run, 240)
    assert run.state() == "success", states(run)
    return Promotion.model_validate(run.result(task))


def note(run: DagRun) -> str:
    return DagRunApi(run.client).get_dag_run(run.dag_id, run.run_id).note or ""


def last_entry(name: str) -> Entry:
    entry = read_log(S3Store(Settings().bucket), name).last
    assert entry is not None
    return entry


def champion(client: MlflowClient, name: str) -> int | None:
    version = model_registry.version_with_alias(client, name, model_registry.CHAMPION)
    return int(version.version) if version else None


def test_a_training_starts_the_promotion_of_its_candidate_and_the_reasons_are_in_the_note(dag_run, connected):
    run = DagRun(dag_run.client, dag_run.run_id, PROMOTION_DAG)
    promotion = ended(run)
    report = RunReport.model_validate(dag_run.result("report"))
    assert (promotion.action, promotion.champion) == ("promote", report.promotion.version)
    assert states(run) == {
        "propose": "success",
        "branch_on_approval": "success",
        "approve": "skipped",
        "record": "success",
    }
    entry = read_log(S3Store(Settings().bucket), NAME).entries[0]
    assert entry.workflow == f"{PROMOTION_DAG}/{dag_run.run_id}"
    assert markdown(promotion.reasons[0]) in note(run)


def test_a_person_approves_one_waiting_promotion_and_rejects_another_while_a_third_one_is_not_kept_waiting(
    dag_run, client, airflow
):
    number = dag_run.result("report")["promotion"]["version"]
    names = ("approved", "rejected", "meanwhile")
    versions = {name: registered_as(client, name, number) for name in names}

    def start(name: str, mode: str) -> DagRun:
        return trigger(airflow, {"registered_model": name, "version": versions[name], "mode": mode}, PROMOTION_DAG)

    approved, rejected = (start(name, "approve") for name in names[:2])
    for run in (approved, rejected):
        wait_for_person(run)
    ended(start("meanwhile", "auto"))
    assert [champion(client, name) for name in names] == [None, None, versions["meanwhile"]]
    answer(approved, "Approve")
    answer(rejected, "Reject")
    wait_until(lambda: "admin rejected it without a reason" in note(rejected), 60)
    wait_for_person(rejected)
    answer(rejected, "Reject", "slow on old phones")
    with pytest.raises(ApiException) as refused:
        answer(approved, "Reject")
    assert refused.value.status == 409
    assert (ended(approved).champion, ended(rejected).champion) == (versions["approved"], None)
    assert champion(client, "approved") == versions["approved"]
    assert champion(client, "rejected") is None
    entries = [last_entry(name) for name in names[:2]]
    assert [(entry.action, entry.who) for entry in entries] == [("promote", "admin"), ("reject", "admin")]
    assert [entry.challenger for entry in entries] == [None, versions["rejected"]]
    assert [entry.answer_reason for entry in entries] == ["", "slow on old phones"]
    assert re.search("admin rejected it at .* UTC: slow on old phones", note(rejected))


def test_a_rollback_makes_the_previous_champion_the_champion_again(dag_run, client, airflow):
    first, second = (registered_as(client, "rolled-back", row["version"]) for row in dag_run.result("report")["rows"])
    for version in (first, second):
        conf = {"registered_model": "rolled-back", "version": version, "mode": "force", "reason": "to be rolled back"}
        assert ended(trigger(airflow, conf, PROMOTION_DAG)).champion == version
    conf = {"registered_model": "rolled-back", "reason": "worse in production"}
    run = trigger(airflow, conf, ROLLBACK_DAG)
    assert ended(run, "roll_back").champion == first
    assert champion(client, "rolled-back") == first
    entry = last_entry("rolled-back")
    assert (entry.action, entry.reason, entry.who) == ("rollback", "worse in production", "admin")
    assert entry.previous == second
    assert "worse in production" in note(run)
