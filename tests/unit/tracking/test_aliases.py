"""Aliases on a real registry: they follow the log, a killed process is made good, a person's move is respected."""

import json
import threading
from typing import TYPE_CHECKING

import pytest

from cifar_tasks.errors import ConfigError, IntegrityError
from cifar_tasks.storage import promotion_log
from cifar_tasks.storage.promotion_log import Entry, Outcome, append, read_log
from cifar_tasks.tracking import aliases
from cifar_tasks.tracking.aliases import FOLLOWED, compare_aliases, follow_log, read_registry
from tests.stores import InMemoryStore

if TYPE_CHECKING:
    from mlflow import MlflowClient


class Model:
    """A registered model with five versions, and its log."""

    def __init__(self, client: "MlflowClient", name: str) -> None:
        self.client, self.name, self.store = client, name, InMemoryStore()
        self.create()

    def create(self, versions: int = 5) -> None:
        self.client.create_registered_model(self.name)
        for number in range(versions):
            self.client.create_model_version(self.name, source=f"s3://bucket/{number}")

    def decide(self, champion: int | None, previous: int | None = None, challenger: int | None = None) -> Entry:
        """An entry that the aliases do not follow yet."""
        registry = read_registry(self.client, self.name)
        assert registry is not None
        outcome = Outcome(
            action="promote",
            candidate=champion,
            champion=champion,
            previous=previous,
            challenger=challenger,
            registry_created=registry.created,
        )
        log = append(self.store, read_log(self.store, self.name), outcome)
        assert log is not None
        return log.entries[-1]

    def set(self, **versions: int) -> None:
        for alias, version in versions.items():
            self.client.set_registered_model_alias(self.name, alias, str(version))

    def follow(self) -> Entry | None:
        return follow_log(self.client, self.store, self.name).last

    @property
    def aliases(self) -> dict[str, int]:
        found = self.client.get_registered_model(self.name).aliases
        return {alias: int(version) for alias, version in found.items()}

    @property
    def state(self) -> str:
        registry = read_registry(self.client, self.name)
        assert registry is not None
        return compare_aliases(self.store, read_log(self.store, self.name), registry)


@pytest.fixture
def model(mlflow_client: "MlflowClient", request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Model:
    monkeypatch.setattr(aliases, "GRACE", 0.05)
    return Model(mlflow_client, request.node.name[:100].replace("[", "-").replace("]", ""))


def test_without_a_log_and_without_aliases_nothing_is_done(model: Model) -> None:
    assert model.state == "in line"
    assert model.follow() is None


def test_the_aliases_follow_each_entry(model: Model) -> None:
    model.decide(1)
    model.follow()
    assert model.aliases == {"champion": 1}
    model.decide(2, previous=1, challenger=3)
    assert model.state == "unfinished"
    model.follow()
    assert model.aliases == {"champion": 2, "previous": 1, "challenger": 3}
    assert model.state == "in line"
    assert len(read_log(model.store, model.name).entries) == 2


@pytest.mark.parametrize(
    "moved",
    [{}, {"previous": 1}, {"previous": 1, "challenger": 3}, {"previous": 1, "challenger": 3, "champion": 2}],
    ids=["none", "one", "two", "all"],
)
def test_a_process_that_was_killed_while_it_moved_the_aliases_is_made_good(model: Model, moved: dict[str, int]) -> None:
    model.decide(1)
    model.follow()
    model.decide(2, previous=1, challenger=3)
    model.set(**moved)
    assert model.state == "unfinished"
    model.follow()
    assert model.aliases == {"champion": 2, "previous": 1, "challenger": 3}
    assert [entry.action for entry in read_log(model.store, model.name).entries] == ["promote", "promote"]


def test_several_entries_that_no_alias_followed_are_made_good_at_once(model: Model) -> None:
    model.decide(1)
    model.decide(2, previous=1)
    model.set(champion=1)
    model.decide(3, previous=2)
    model.follow()
    assert model.aliases == {"champion": 3, "previous": 2}


def test_each_decision_is_noted_with_its_version_by_whoever_follows_it_first(model: Model) -> None:
    for champion in (2, 3):
        model.decide(champion)
    model.set(champion=3)
    model.follow()
    for version, entry in ((2, 1), (3, 2)):
        found = model.client.get_model_version(model.name, str(version))
        assert json.loads(found.tags["cifar.decision"])["number"] == entry
        assert f"Entry {entry} of the promotion log" in found.description
    model.set(champion=5)
    model.follow()
    moved = model.client.get_model_version(model.name, "5")
    assert "somebody moved the alias champion from version 3 to version 5" in moved.description


def test_an_alias_that_a_person_moved_is_entered_into_the_log_and_stays(model: Model) -> None:
    model.decide(2, previous=1)
    model.follow()
    model.set(champion=4)
    assert model.state == "moved by hand"
    entry = model.follow()
    assert entry is not None
    assert (entry.action, entry.number, entry.champion) == ("manual", 2, 4)
    assert entry.reasons == ("somebody moved the alias champion from version 2 to version 4 in MLflow",)
    assert model.aliases == {"champion": 4, "previous": 2}
    assert model.follow() == entry


def test_an_alias_that_a_person_moved_while_another_was_not_moved_yet_stays(model: Model) -> None:
    model.decide(1)
    model.follow()
    model.decide(2, previous=1)
    model.set(champion=5)
    entry = model.follow()
    assert entry is not None
    assert (entry.action, entry.champion) == ("manual", 5)
    assert model.aliases["champion"] == 5


def test_an_alias_that_a_person_removed_stays_removed(model: Model) -> None:
    model.decide(2, previous=1, challenger=3)
    model.follow()
    model.client.delete_registered_model_alias(model.name, "challenger")
    entry = model.follow()
    assert entry is not None
    assert entry.reasons == ("somebody removed the alias challenger from version 3 in MLflow",)
    assert model.aliases == {"champion": 2, "previous": 1}


def test_a_champion_that_a_person_deleted_is_none_any_more(model: Model) -> None:
    model.decide(2, previous=1)
    model.follow()
    model.client.delete_model_version(model.name, "2")
    entry = model.follow()
    assert entry is not None
    assert (entry.action, entry.champion, entry.previous) == ("manual", None, 1)
    assert entry.reasons == ("somebody deleted version 2 in MLflow: the champion is now none",)


def test_a_version_that_was_deleted_before_its_alias_followed_does_not_become_champion(model: Model) -> None:
    model.decide(1)
    model.follow()
    model.decide(2, previous=1)
    model.client.delete_model_version(model.name, "2")
    entry = model.follow()
    assert entry is not None
    assert (entry.action, entry.champion) == ("manual", 1)
    assert "somebody deleted version 2 in MLflow: the champion is now version 1" in entry.reasons


def test_aliases_from_before_the_log_are_its_first_entry(model: Model) -> None:
    model.set(champion=3, previous=1)
    entry = model.follow()
    assert entry is not None
    assert (entry.number, entry.action, entry.champion, entry.previous) == (1, "manual", 3, 1)
    assert entry.reasons[:2] == (
        "the promotion log begins with the aliases that are in place",
        "the alias champion is at version 3",
    )


def test_a_registered_model_that_was_deleted_and_created_again_has_no_champion_of_old(model: Model) -> None:
    model.decide(4, previous=3)
    model.follow()
    model.client.delete_registered_model(model.name)
    model.create(versions=1)
    entry = model.follow()
    assert entry is not None
    assert (entry.champion, entry.previous) == (None, None)
    assert entry.reasons[0] == f"the registered model {model.name} was deleted and created again"
    model.decide(1)
    model.follow()
    assert model.aliases == {"champion": 1}


@pytest.mark.parametrize("change", ["alter", "delete"])
def test_the_last_entry_is_named_if_it_was_altered_or_deleted(model: Model, change: str) -> None:
    model.decide(1)
    model.decide(2, previous=1)
    model.follow()
    place = promotion_log.key(model.name, 2)
    if change == "alter":
        model.store.put(place, model.store.get(place).replace(b'"champion":2', b'"champion":3'))
    else:
        model.store.delete(place)
    what = "was altered" if change == "alter" else "is missing"
    with pytest.raises(IntegrityError, match=f"entry 2 of the promotion log of .* {what}"):
        model.follow()
    assert model.aliases == {"champion": 2, "previous": 1}


def test_a_tag_that_a_person_changed_or_deleted_is_set_again(model: Model) -> None:
    model.decide(1)
    model.follow()
    model.client.set_registered_model_tag(model.name, FOLLOWED, "nonsense")
    entry = model.follow()
    assert entry is not None
    assert entry.number == 1
    assert model.state == "in line"


def test_an_alias_that_does_not_become_what_was_set_is_an_error(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    model.decide(1)
    model.follow()
    model.decide(2, previous=1)
    monkeypatch.setattr(model.client, "set_registered_model_alias", lambda *_: None)
    with pytest.raises(IntegrityError, match="do not become what was set"):
        model.follow()
    assert len(read_log(model.store, model.name).entries) == 2


def test_a_model_that_is_not_registered_is_named(model: Model) -> None:
    with pytest.raises(ConfigError, match="there is no registered model none-such in MLflow"):
        follow_log(model.client, model.store, "none-such")


def test_a_slower_process_does_not_leave_its_own_state(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stops before it sets the champion, while another one decides and moves the aliases."""
    model.decide(1)
    model.follow()
    model.decide(2, previous=1)
    set_alias, stopped, go_on = model.client.set_registered_model_alias, threading.Event(), threading.Event()

    def slow(name: str, alias: str, version: str) -> None:
        if (alias, version) == ("champion", "2") and not stopped.is_set():
            stopped.set()
            go_on.wait(10)
        set_alias(name, alias, version)

    monkeypatch.setattr(model.client, "set_registered_model_alias", slow)
    slower = threading.Thread(target=model.follow)
    slower.start()
    stopped.wait(10)
    model.decide(3, previous=2)
    model.follow()
    assert model.aliases == {"champion": 3, "previous": 2}
    go_on.set()
    slower.join()
    assert model.aliases == {"champion": 3, "previous": 2}
    assert [entry.action for entry in read_log(model.store, model.name).entries] == ["promote"] * 3
