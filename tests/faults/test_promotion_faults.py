"""Promotions and rollbacks that are killed, that meet another one, or that find altered files."""

import io
import itertools
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest

from cifar_tasks.deployment.doctor.check_runner import Deployment, Finding
from cifar_tasks.errors import IntegrityError
from cifar_tasks.settings import Settings
from cifar_tasks.steps.payloads import EvaluatedModel
from cifar_tasks.steps.promote import record
from cifar_tasks.steps.promotion_payloads import Proposal
from cifar_tasks.storage import promotion_log
from cifar_tasks.storage.s3 import S3Store
from cifar_tasks.tracking.aliases import follow_log
from cifar_tasks.tracking.evaluations import read_evaluation, read_probabilities
from tests.promotions import FORCE, aliases, cifar, log_of, promote, registered_as, rolled_back, second
from tests.trainings import Background, as_json
from tests.unit.deployment.doctor.deployments import find
from tests.waiting import wait_until

HANG = "tests.promotions:record_and_hang_before_the_champion_moves"
ROUNDS = "tests.promotions:record_in_rounds"


def doctor() -> Finding:
    """What it says of the logs of all registered models, those of other tests among them."""
    return find("promotion logs", Deployment(Settings(), embedded=True))


def kill_between_log_and_alias(proposal: Proposal) -> None:
    task = Background(HANG, proposal=as_json(proposal))
    wait_until(lambda: "hanging" in task.lines)
    task.child().kill()
    task.join()


def test_a_promotion_that_is_killed_between_log_and_alias_is_finished_by_its_retry(client, evaluated, name):
    proposal = second(client, evaluated, name)
    kill_between_log_and_alias(proposal)
    assert [entry.champion for entry in log_of(name).entries] == [1, 2]
    assert aliases(client, name) == {"champion": 1, "previous": 1}
    assert record(proposal, None).number == 2
    assert aliases(client, name) == {"champion": 2, "previous": 1}


def test_the_next_promotion_finishes_one_that_was_killed(client, evaluated, name):
    kill_between_log_and_alias(second(client, evaluated, name))
    assert promote(registered_as(client, evaluated, name)).action == "keep"
    assert aliases(client, name) == {"champion": 2, "previous": 1, "challenger": 3}
    noted = client.get_model_version(name, "2")
    assert json.loads(noted.tags["cifar.decision"])["number"] == 2
    assert "Entry 2 of the promotion log" in noted.description


def test_the_command_repair_finishes_one_that_was_killed(client, evaluated, name):
    kill_between_log_and_alias(second(client, evaluated, name))
    said = cifar("promotions", "repair", "--registered-model", name).output
    assert "entry 2" in said
    assert aliases(client, name) == {"champion": 2, "previous": 1}
    assert len(log_of(name).entries) == 2


def test_the_doctor_finishes_one_that_was_killed_and_says_so(client, evaluated, name):
    """Of whichever registered model."""
    kill_between_log_and_alias(second(client, evaluated, name))
    assert f"the aliases of {name} did not follow entry 2 of its promotion log; they do now" in doctor().message
    assert aliases(client, name) == {"champion": 2, "previous": 1}
    assert json.loads(client.get_model_version(name, "2").tags["cifar.decision"])["number"] == 2
    assert name not in doctor().message
    assert len(log_of(name).entries) == 2


def test_an_alias_that_a_person_moved_is_named_by_the_doctor_and_left_to_the_person(client, evaluated, name):
    promote(registered_as(client, evaluated, name), **FORCE)
    client.set_registered_model_alias(name, "champion", "1")
    found = doctor()
    assert f"somebody moved an alias of {name} in MLflow" in found.message
    assert f"cifar promotions repair --registered-model {name} (the next promotion" in found.remedy
    assert (aliases(client, name)["champion"], len(log_of(name).entries)) == (1, 2)
    follow_log(client, S3Store(Settings().bucket), name)
    assert name not in doctor().message


def test_two_processes_that_promote_at_once_leave_one_champion_and_a_whole_chain(client, evaluated, name, tmp_path):
    """20 rounds; each process promotes its own version."""
    given = {"rounds": 20, "folder": str(tmp_path)}
    proposals = [second(client, evaluated, name) for _ in range(2)]
    tasks = [Background(ROUNDS, proposal=as_json(proposal), **given) for proposal in proposals]
    for task in tasks:
        task.join()
    assert [task.error for task in tasks] == [None, None]
    assert [task.result for task in tasks] == [[True] * 20] * 2, "after each round the aliases are those of the log"
    first, *entries = log_of(name).entries
    assert (len(entries), len({entry.workflow for entry in entries})) == (40, 40)
    for before, entry in itertools.pairwise((first, *entries)):
        if entry.action == "promote":
            assert (entry.champion, entry.previous) == (entry.candidate, before.champion)
        else:
            assert (entry.action, entry.candidate, entry.aliases()) == ("keep", before.champion, before.aliases())
    assert {entry.candidate for entry in entries if entry.action == "promote"} == {2, 3}


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
def test_an_entry_that_was_altered_or_is_missing_is_named_and_repaired_by_nobody(client, evaluated, name, number, what):
    promote(registered_as(client, evaluated, name))
    store = S3Store(Settings().bucket)
    with damaged_entry(store, name, number, what):
        found = doctor()
        assert re.search(rf"entry {number} of the promotion log of {name} (was )?(is )?{what}", found.message)
        assert (found.status, "Restore this object" in found.remedy) == ("failure", True)
        with pytest.raises(IntegrityError, match=f"entry {number} of the promotion log"):
            promote(registered_as(client, evaluated, name))
        assert name in doctor().message
    assert name not in doctor().message, "restored"


def test_a_damaged_log_does_not_keep_the_doctor_from_another_registered_model(client, evaluated, name):
    other = f"{name}-2"
    promote(registered_as(client, evaluated, other))
    kill_between_log_and_alias(second(client, evaluated, name))
    with damaged_entry(S3Store(Settings().bucket), other, 1, "altered"):
        message = doctor().message
    assert f"entry 1 of the promotion log of {other} was altered" in message
    assert f"the aliases of {name} did not follow entry 2" in message
    assert aliases(client, name)["champion"] == 2


@contextmanager
def damaged_entry(store: S3Store, name: str, number: int, what: str) -> Iterator[None]:
    place = promotion_log.key(name, number)
    entry = store.get(place)
    if what == "altered":
        store.put(place, entry.replace(b'"mode":"auto"', b'"mode":"force"'))
    else:
        store.delete(place)
    try:
        yield
    finally:
        store.put(place, entry)
