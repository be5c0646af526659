"""The promotion logs of all registered models: what is told of each, and which aliases the doctor moves."""

import uuid
from typing import TYPE_CHECKING

import pytest

from cifar_tasks.deployment.doctor import promotion_checks
from cifar_tasks.deployment.doctor.check_runner import Deployment, Finding
from cifar_tasks.errors import TrackingRefused
from cifar_tasks.settings import Settings
from cifar_tasks.storage import promotion_log
from cifar_tasks.storage.promotion_log import Outcome, append, read_log
from cifar_tasks.tracking import runs
from cifar_tasks.tracking.aliases import follow_log, read_registry
from tests.stores import InMemoryStore
from tests.unit.deployment.doctor.deployments import find

if TYPE_CHECKING:
    from mlflow import MlflowClient


class Logs:
    """Of registered models with two versions, in a bucket of their own."""

    def __init__(self, client: "MlflowClient", *, embedded: bool = True) -> None:
        store = self.store = InMemoryStore()
        self.client, self.mark = client, uuid.uuid4().hex[:8]

        class OwnBucket(Deployment):
            def store(self) -> InMemoryStore:
                return store

        self.deployment = OwnBucket(Settings(registered_model=self.name("configured")), embedded)

    def name(self, short: str) -> str:
        return f"{short}-{self.mark}"

    def create(self, short: str) -> str:
        """With version 1 as the champion, by its log."""
        name = self.name(short)
        self.client.create_registered_model(name)
        for number in (1, 2):
            self.client.create_model_version(name, source=f"s3://bucket/{number}")
        self.promote(name, 1)
        follow_log(self.client, self.store, name)
        return name

    def promote(self, name: str, champion: int) -> None:
        """An entry that no alias follows yet."""
        registry = read_registry(self.client, name)
        fields = {"action": "promote", "candidate": champion, "previous": None, "challenger": None}
        outcome = Outcome(**fields, champion=champion, registry_created=registry and registry.created)
        assert append(self.store, read_log(self.store, name), outcome)

    def champion(self, name: str) -> int:
        return int(self.client.get_registered_model(name).aliases["champion"])

    def find(self) -> Finding:
        return find("promotion logs", self.deployment)


@pytest.fixture
def logs(mlflow_client: "MlflowClient", monkeypatch: pytest.MonkeyPatch) -> Logs:
    monkeypatch.setattr(runs, "mlflow_client", lambda: mlflow_client)
    return Logs(mlflow_client)


def test_without_any_log_there_is_nothing_to_check(logs: Logs) -> None:
    assert logs.find() == Finding("skipped", "no registered model has a promotion log yet")


def test_logs_that_the_aliases_follow_are_counted(logs: Logs) -> None:
    for short in ("one", "two", "configured"):
        logs.create(short)
    logs.store.put("promotions/one/comparisons/1.html", b"")
    assert logs.find() == Finding("ok", "logs: 3, entries: 3; the aliases follow")


def test_a_model_that_was_deleted_in_mlflow_keeps_its_log_and_is_no_problem(logs: Logs) -> None:
    logs.client.delete_registered_model(logs.create("gone"))
    assert logs.find() == Finding("ok", "logs: 1, entries: 1; the aliases follow")


def test_aliases_that_do_not_follow_yet_are_moved_for_every_model(logs: Logs) -> None:
    behind = [logs.create(short) for short in ("one", "configured", "two")]
    for name in behind:
        logs.promote(name, 2)
    found = logs.find()
    assert found.status == "ok"
    for name in behind:
        assert f"the aliases of {name} did not follow entry 2 of its promotion log; they do now" in found.message
        assert logs.champion(name) == 2
    assert logs.find() == Finding("ok", "logs: 3, entries: 6; the aliases follow")


def test_all_problems_are_told_the_worst_first_and_none_keeps_another_model_from_being_repaired(logs: Logs) -> None:
    damaged, behind, moved = (logs.create(short) for short in ("damaged", "behind", "moved"))
    for name in (damaged, behind):
        logs.promote(name, 2)
    logs.store.put(promotion_log.key(damaged, 1), b"{}")
    logs.client.set_registered_model_alias(moved, "champion", "2")
    before = dict(logs.store.objects)
    found = logs.find()
    assert found.status == "failure"
    problems = found.message.split("; ")
    assert (
        problems[0]
        == f"entry 1 of the promotion log of {damaged} was altered: memory://promotions/{damaged}/000001.json"
    )
    assert problems[1] == f"somebody moved an alias of {moved} in MLflow, which the log does not say yet"
    assert f"the aliases of {behind} did not follow entry 2" in problems[2]
    assert "Restore this object from a backup" in found.remedy
    assert f"cifar promotions repair --registered-model {moved} (the next promotion" in found.remedy
    assert [logs.champion(name) for name in (damaged, behind, moved)] == [1, 2, 2]
    assert logs.store.objects == before


def test_a_log_of_which_no_entry_is_left_is_told_of_the_model_of_the_settings(logs: Logs) -> None:
    name = logs.create("configured")
    logs.store.delete(promotion_log.key(name, 1))
    found = logs.find()
    assert (found.status, f"entry 1 of the promotion log of {name} is missing" in found.message) == ("failure", True)


def test_a_folder_of_any_name_does_not_stop_the_doctor(logs: Logs) -> None:
    logs.store.put("promotions/{name}/000002.json", b"")
    assert "folder promotions/{name} away" in logs.find().remedy


@pytest.mark.parametrize(("embedded", "command"), [(True, "cifar"), (False, "docker compose run --rm cifar")])
def test_without_the_right_to_move_aliases_dag_and_command_are_named(
    mlflow_client: "MlflowClient", monkeypatch: pytest.MonkeyPatch, embedded: bool, command: str
) -> None:
    def refuse(*_: object) -> None:
        raise TrackingRefused("MLflow refused: no permission.")

    monkeypatch.setattr(runs, "mlflow_client", lambda: mlflow_client)
    logs = Logs(mlflow_client, embedded=embedded)
    name = logs.create("behind")
    logs.promote(name, 2)
    monkeypatch.setattr(promotion_checks, "follow_log", refuse)
    found = logs.find()
    assert (found.status, logs.champion(name)) == ("warning", 1)
    assert found.message.endswith("this process may not move them: MLflow refused: no permission.")
    assert found.remedy == (
        f"Start the DAG cifar10_promotion for {name}, or as a user who may move aliases: "
        f"{command} promotions repair --registered-model {name}"
    )
