"""Rollback on real services: what is verified, and what moves."""

import getpass
import json

import pytest

from cifar_tasks.errors import ConfigError, IntegrityError
from cifar_tasks.settings import Settings
from cifar_tasks.storage.s3 import S3Store
from cifar_tasks.tracking.evaluations import StoredEvaluation, read_evaluation
from tests.promotions import aliases, cifar, log_of, promote, registered_as, rolled_back


@pytest.fixture
def name(new_name: str) -> str:
    return new_name


def test_the_previous_champion_is_the_champion_again(client, name, weak, strong):
    promote(registered_as(client, weak, name))
    promote(registered_as(client, strong, name))
    promotion = rolled_back(name, reason=" it is slow ", by="ada")
    assert (promotion.action, promotion.champion, promotion.previous) == ("rollback", 1, 2)
    assert aliases(client, name) == {"champion": 1, "previous": 2}
    entry = log_of(name).last
    assert (entry.who, entry.reason, entry.candidate) == ("ada", "it is slow", 1)
    assert entry.reasons[0] == "version 1 is the champion again, in place of version 2"
    assert "it classifies 60 test images as it did" in entry.reasons[1]
    assert json.loads(client.get_model_version(name, "1").tags["cifar.decision"])["action"] == "rollback"
    assert rolled_back(name).champion == 2


def test_what_cannot_be_rolled_back_to_is_named(client, name, weak):
    promote(registered_as(client, weak, name))
    problems = {None: "names no champion before", 1: "champion already", 7: "deleted or renamed"}
    for version, problem in problems.items():
        with pytest.raises(ConfigError, match=problem):
            rolled_back(name, version)
    with pytest.raises(ConfigError, match="no registered model none-such"):
        rolled_back("none-such")
    with pytest.raises(ValueError, match="say why"):
        rolled_back(name, reason="  ")
    assert len(log_of(name).entries) == 1


@pytest.mark.parametrize("what", ["evaluation", "probabilities"])
@pytest.mark.parametrize("fault", ["deleted", "altered"])
def test_without_its_stored_probabilities_nothing_moves(client, name, weak, strong, what, fault):
    promote(registered_as(client, weak, name))
    promote(registered_as(client, strong, name))
    store = S3Store(Settings().bucket)
    version = client.get_model_version(name, "1")
    evaluation = read_evaluation(store, version.tags["cifar.test_set"], weak.trained.saved.sha256)
    key = {"evaluation": evaluation_key(evaluation), "probabilities": evaluation.probabilities.key}[what]
    before = store.get(key)
    if fault == "deleted":
        store.delete(key)
    else:
        store.put(key, b"x" + before[1:])
    try:
        with pytest.raises(IntegrityError, match="nothing tells whether the model still answers as it did"):
            rolled_back(name)
    finally:
        store.put(key, before)  # the models of this file are shared
    assert aliases(client, name)["champion"] == 2
    assert len(log_of(name).entries) == 2


def test_rollback_says_what_it_verified_and_logs_the_person(client, name, weak):
    for _ in range(2):
        promote(registered_as(client, weak, name), mode="force", reason="a test")
    done = cifar("rollback", "--registered-model", name, "--reason", "slow on [old] phones")
    assert "version 1 is the champion again, in place of version 2" in done.output
    assert "reason given: slow on [old] phones" in done.output
    assert "Entry 3 of the promotion log" in done.output
    assert log_of(name).last.who == getpass.getuser()


def evaluation_key(evaluation: StoredEvaluation) -> str:
    return f"{evaluation.probabilities.key.rpartition('/')[0]}/evaluation.json"


def test_without_a_champion_a_rollback_to_the_challenger_makes_it_the_champion(client, name, weak, strong):
    promote(registered_as(client, strong, name))
    promote(registered_as(client, weak, name))
    assert aliases(client, name) == {"champion": 1, "challenger": 2}
    client.delete_model_version(name, "1")
    assert rolled_back(name, 2).champion == 2
    assert aliases(client, name) == {"champion": 2, "challenger": 2}
