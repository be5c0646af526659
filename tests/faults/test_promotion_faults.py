"""Promotions and rollbacks that are killed, that meet another one, or that find altered files."""

import io
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from cifar_tasks.deployment.doctor import storage_checks
from cifar_tasks.deployment.doctor.check_runner import Deployment, Finding
from cifar_tasks.errors import IntegrityError, TrackingError
from cifar_tasks.settings import Settings
from cifar_tasks.steps.evaluate import evaluate_model
from cifar_tasks.steps.payloads import EvaluatedModel
from cifar_tasks.steps.promote import record
from cifar_tasks.steps.promotion_payloads import Proposal
from cifar_tasks.steps.train import train_model
from cifar_tasks.storage import promotion_log
from cifar_tasks.storage.promotion_log import Log, Outcome, decide_and_append
from cifar_tasks.storage.s3 import S3Store
from cifar_tasks.tracking import aliases as aliases_module
from cifar_tasks.tracking.aliases import follow_log, read_registry
from cifar_tasks.tracking.evaluations import read_evaluation, read_probabilities
from tests.conftest import RunningStack, connect
from tests.promotions import aliases, log_of, promote, proposed, registered_as, rolled_back
from tests.trainings import Background, as_json, prepared, train_plan
from tests.waiting import wait_until

FORCE = {"mode": "force", "reason": "a test"}
HANG = "tests.promotions:record_and_hang_before_the_champion_moves"


@pytest.fixture(scope="module")
def evaluated(backend: RunningStack, pictures: Path) -> EvaluatedModel:
    """One model; each test registers versions of it, and the mode force moves the champion."""
    with pytest.MonkeyPatch.context() as patch:
        connect(patch, backend.environment)
        return evaluate_model(train_model(train_plan(prepared(pictures, "promotion-faults"), epochs=1)))


@pytest.fixture
def name(client: MlflowClient, evaluated: EvaluatedModel, request: pytest.FixtureRequest) -> str:
    """A registered model of which version 1 is the champion."""
    name = re.sub(r"\W", "-", request.node.name)[-90:]
    promote(registered_as(client, evaluated, name))
    return name


def doctor(name: str) -> str:
    return storage_checks.promotion_log(Deployment(Settings(registered_model=name), embedded=True))


def second(client: MlflowClient, evaluated: EvaluatedModel, name: str) -> Proposal:
    return proposed(registered_as(client, evaluated, name), **FORCE)


def test_a_promotion_that_is_killed_between_log_and_alias_is_finished_by_its_retry(client, evaluated, name):
    proposal = second(client, evaluated, name)
    task = Background(HANG, proposal=as_json(proposal))
    wait_until(lambda: "hanging" in task.lines)
    task.child().kill()
    task.join()
    assert [entry.champion for entry in log_of(name).entries] == [1, 2]
    assert aliases(client, name) == {"champion": 1, "previous": 1}
    with pytest.raises(Finding, match="do not follow entry 2 yet") as found:
        doctor(name)
    assert found.value.status == "warning"
    assert record(proposal, None).number == 2
    assert aliases(client, name) == {"champion": 2, "previous": 1}
    assert doctor(name) == "2 entries, the aliases follow"


def test_the_next_promotion_finishes_one_that_was_killed(client, evaluated, name):
    task = Background(HANG, proposal=as_json(second(client, evaluated, name)))
    wait_until(lambda: "hanging" in task.lines)
    task.child().kill()
    task.join()
    assert promote(registered_as(client, evaluated, name)).action == "keep"
    assert aliases(client, name) == {"champion": 2, "previous": 1, "challenger": 3}
    noted = client.get_model_version(name, "2")
    assert json.loads(noted.tags["cifar.decision"])["number"] == 2
    assert "Entry 2 of the promotion log" in noted.description


def test_mlflow_that_stops_while_the_aliases_move_loses_nothing(client, evaluated, name, monkeypatch):
    proposal, move = second(client, evaluated, name), aliases_module._move
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        patch.setenv("NO_PROXY", "")
        patch.setenv("no_proxy", "")

        def move_without_a_server(*arguments):
            patch.setenv("http_proxy", "http://127.0.0.1:9")
            return move(*arguments)

        patch.setattr(aliases_module, "_move", move_without_a_server)
        with pytest.raises(TrackingError) as lost:
            record(proposal, None)
    assert lost.value.retryable
    assert aliases(client, name) == {"champion": 1}
    assert record(proposal, None).number == 2
    assert aliases(client, name) == {"champion": 2, "previous": 1}


def test_two_that_decide_at_once_leave_one_champion_and_a_whole_chain(client, evaluated, name):
    """20 rounds of log and aliases; each decides for its own version."""
    for _ in range(2):
        registered_as(client, evaluated, name)
    store = S3Store(Settings().bucket)

    def decide(version: int, run: str) -> None:
        def outcome(log: Log) -> Outcome:
            registry, last = read_registry(client, name), log.last
            return Outcome(
                action="promote",
                candidate=version,
                champion=version,
                previous=last and last.champion,
                challenger=None,
                registry_created=registry and registry.created,
                workflow=run,
            )

        decide_and_append(store, name, run, outcome)
        follow_log(client, store, name)

    with ThreadPoolExecutor(2) as pool:
        for number in range(20):
            list(pool.map(decide, (2, 3), (f"a/{number}", f"b/{number}")))
            assert aliases(client, name)["champion"] == log_of(name).last.champion
    entries = log_of(name).entries
    assert [entry.action for entry in entries] == ["promote"] * 41
    assert len({entry.workflow for entry in entries}) == 41
    assert [entry.previous for entry in entries[1:]] == [entry.champion for entry in entries[:-1]]


def test_two_promotions_at_once_are_both_decided_and_the_later_on_the_new_champion(client, evaluated, name):
    proposals = [second(client, evaluated, name) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda proposal: record(proposal, None), proposals))
    first, later = log_of(name).entries[1:]
    assert (first.previous, later.previous) == (1, first.champion)
    assert later.decision["champion"]["version"] == first.champion
    assert aliases(client, name) == {"champion": later.champion, "previous": first.champion}


@contextmanager
def altered_file(evaluated: EvaluatedModel) -> Iterator[None]:
    store = S3Store("mlflow")
    (key,) = (key for key in store.keys("") if evaluated.trained.saved.model_id in key and key.endswith(".pt2"))
    whole = store.get(key)
    store.put(key, whole[:-1] + bytes([whole[-1] ^ 1]))
    yield
    store.put(key, whole)


def test_a_version_whose_file_was_altered_is_not_promoted_and_not_rolled_back_to(client, evaluated, name):
    promote(registered_as(client, evaluated, name), **FORCE)
    proposal = second(client, evaluated, name)
    with altered_file(evaluated):
        for attempt in (
            lambda: second(client, evaluated, name),
            lambda: record(proposal, None),
            lambda: rolled_back(name),
        ):
            with pytest.raises(IntegrityError, match="is damaged: SHA-256"):
                attempt()
    assert [entry.champion for entry in log_of(name).entries] == [1, 2]
    assert aliases(client, name) == {"champion": 2, "previous": 1}
    assert rolled_back(name).champion == 1


def test_a_version_that_does_not_compute_its_stored_probabilities_is_not_rolled_back_to(client, evaluated, name):
    promote(registered_as(client, evaluated, name), **FORCE)
    store = S3Store(Settings().bucket)
    evaluation = read_evaluation(store, evaluated.test_set, evaluated.trained.saved.sha256)
    key = f"evaluations/{evaluated.test_set[:16]}/{evaluated.trained.saved.sha256[:16]}/evaluation.json"
    whole, other = store.get(key), io.BytesIO()
    np.save(other, np.ascontiguousarray(read_probabilities(store, evaluation)[:, ::-1]))
    ref = store.put("evaluations/other.npy", other.getvalue())
    store.put(key, evaluation.model_copy(update={"probabilities": ref}).model_dump_json().encode())
    try:
        with pytest.raises(IntegrityError, match="does not compute its stored probabilities: on 60 test images"):
            rolled_back(name)
    finally:
        store.put(key, whole)
    assert aliases(client, name) == {"champion": 2, "previous": 1}


def test_after_its_version_was_deleted_there_is_no_champion_until_the_next_promotion(client, evaluated, name):
    client.delete_model_version(name, "1")
    promotion = promote(registered_as(client, evaluated, name))
    assert (promotion.action, promotion.champion, promotion.previous) == ("promote", 2, None)
    manual = log_of(name).entries[1]
    assert (manual.action, manual.champion) == ("manual", None)
    assert manual.reasons == ("somebody deleted version 1 in MLflow: the champion is now none",)


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("what", ["altered", "missing"])
def test_the_doctor_names_an_entry_that_was_altered_or_is_missing(client, evaluated, name, number, what):
    promote(registered_as(client, evaluated, name))
    store = S3Store(Settings().bucket)
    place = promotion_log.key(name, number)
    entry = store.get(place)
    if what == "altered":
        store.put(place, entry.replace(b'"mode":"auto"', b'"mode":"force"'))
    else:
        store.delete(place)
    with pytest.raises(Finding, match=rf"entry {number} of the promotion log of {name} (was )?(is )?{what}") as found:
        doctor(name)
    assert (found.value.status, "Restore this object" in found.value.remedy) == ("failure", True)
    with pytest.raises(IntegrityError, match=f"entry {number} of the promotion log"):
        promote(registered_as(client, evaluated, name))
