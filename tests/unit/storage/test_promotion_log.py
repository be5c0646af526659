"""The promotion log: a chain that shows changes and gaps, and one winner of those who decide at once."""

import json
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from cifar_tasks.errors import IntegrityError, StorageRefused
from cifar_tasks.storage import promotion_log
from cifar_tasks.storage.promotion_log import Log, Outcome, challenger_after, decide_and_append, read_log, uses_of
from cifar_tasks.storage.s3 import S3Store
from tests.stores import InMemoryStore

NAME = "my model-1.0"


def outcome(champion: int | None = 1, workflow: str = "cli/a", action: str = "promote", **more: object) -> Outcome:
    fields = {"action": action, "candidate": champion, "champion": champion, "previous": None, "challenger": None}
    return Outcome.model_validate({**fields, "workflow": workflow, **more})


def written(store: S3Store, count: int, name: str = NAME, **more: object) -> Log:
    for number in range(1, count + 1):
        decide_and_append(store, name, f"run/{number}", lambda log, n=number: outcome(n, f"run/{n}", **more))
    return read_log(store, name)


def test_entries_are_numbered_and_each_holds_the_digest_of_the_one_before():
    log = written(InMemoryStore(), 3)
    assert [entry.number for entry in log.entries] == [1, 2, 3]
    assert [entry.previous_sha256 for entry in log.entries] == [None, *log.digests[:2]]
    assert log.last.champion == 3
    assert log.last.time.tzinfo is not None
    assert log.last.aliases() == {"champion": 3, "previous": None, "challenger": None}


@pytest.mark.parametrize(("champion", "previous", "earlier"), [(2, 1, 1), (2, 2, None), (2, None, None), (None, 1, 1)])
def test_the_earlier_champion_is_another_version_than_the_champion(champion, previous, earlier):
    assert written_one(champion, previous).last.earlier_champion == earlier


@pytest.mark.parametrize(
    ("champion", "challenger", "now", "after"),
    [(1, 2, 3, 2), (1, None, 3, None), (1, 2, 2, 1), (None, 2, 2, 2), (None, 2, 3, 2)],
)
def test_the_champion_that_is_replaced_takes_the_place_of_a_challenger_that_wins(champion, challenger, now, after):
    assert challenger_after(outcome(champion, challenger=challenger), now) == after
    assert challenger_after(None, now) is None


def written_one(champion: int | None, previous: int | None) -> Log:
    store = InMemoryStore()
    decide_and_append(store, NAME, "run/1", lambda log: outcome(champion, "run/1", previous=previous))
    return read_log(store, NAME)


def test_an_empty_log_has_no_last_entry_and_other_models_have_their_own_log():
    store = InMemoryStore()
    written(store, 2, "other")
    assert read_log(store, NAME).last is None
    assert len(read_log(store, "other").entries) == 2
    assert len(read_log(store, "othe").entries) == 0


@pytest.mark.parametrize("number", [1, 2, 3])
def test_an_entry_that_was_altered_is_named_with_what_to_do(number):
    store = InMemoryStore()
    written(store, 4)
    place = promotion_log.key(NAME, number)
    store.put(place, store.get(place).replace(b'"reason":""', b'"reason":"better"'))
    with pytest.raises(IntegrityError, match=f"entry {number} of the promotion log of {NAME} was altered: memory://.*"):
        read_log(store, NAME)


@pytest.mark.parametrize(
    "content", [b"", b"no JSON", b"[]", b"{}", b'{"number": 4}'], ids=["empty", "text", "list", "no field", "one field"]
)
def test_a_last_entry_that_is_none_is_named_too(content):
    store = InMemoryStore()
    written(store, 4)
    store.put(promotion_log.key(NAME, 4), content)
    with pytest.raises(IntegrityError, match=r"entry 4 .* was altered"):
        read_log(store, NAME)


@pytest.mark.parametrize(("copied", "to"), [(1, 3), (3, 1)])
def test_an_entry_in_the_place_of_another_is_named(copied, to):
    store = InMemoryStore()
    written(store, 3)
    store.put(promotion_log.key(NAME, to), store.get(promotion_log.key(NAME, copied)))
    with pytest.raises(IntegrityError, match=f"entry {to} .* was altered"):
        read_log(store, NAME)


@pytest.mark.parametrize("number", [1, 3])
def test_a_missing_entry_is_named_and_nothing_is_appended(number):
    store = InMemoryStore()
    written(store, 4)
    store.delete(promotion_log.key(NAME, number))
    with pytest.raises(IntegrityError, match=f"entry {number} .* is missing: .* Restore this object from a backup"):
        decide_and_append(store, NAME, "run/9", lambda log: outcome())
    assert not store.exists(promotion_log.key(NAME, 5))


def test_a_retry_of_the_same_run_finds_its_entry_and_decides_nothing():
    store = InMemoryStore()
    written(store, 3)
    again = decide_and_append(store, NAME, "run/2", lambda log: pytest.fail("decided again"))
    assert (again.number, again.champion) == (2, 2)
    assert len(read_log(store, NAME).entries) == 3


def test_a_move_by_hand_that_a_run_has_noticed_is_not_the_decision_of_that_run():
    store = InMemoryStore()
    assert promotion_log.append(store, read_log(store, NAME), outcome(7, "run/1", "manual"))
    entry = decide_and_append(store, NAME, "run/1", lambda log: outcome(8, "run/1"))
    assert (entry.number, entry.champion) == (2, 8)


def test_of_several_that_decide_at_once_each_decides_on_the_log_that_it_extends():
    store, at_once = InMemoryStore(), Barrier(8)

    def decide(number: int) -> None:
        first = True

        def on(log: Log) -> Outcome:
            nonlocal first
            if first:
                at_once.wait()
            first = False
            seen = log.last.champion if log.last else None
            return outcome(number, f"run/{number}", previous=seen)

        decide_and_append(store, NAME, f"run/{number}", on)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(decide, range(1, 9)))
    entries = read_log(store, NAME).entries
    assert sorted(entry.champion for entry in entries) == list(range(1, 9))
    assert [entry.previous for entry in entries] == [None, *(entry.champion for entry in entries[:-1])]


def test_uses_of_test_images_are_counted_over_all_registered_models_and_decisions_only():
    store = InMemoryStore()
    written(store, 3, "one", test_set="a")
    written(store, 2, "two", test_set="a", action="keep")
    written(store, 2, "three", test_set="b", action="reject")
    written(store, 1, "four", test_set="a", action="rollback")
    assert (uses_of(store, "a"), uses_of(store, "b"), uses_of(store, "c")) == (5, 2, 0)


def test_a_damaged_log_stops_no_promotion_of_another_model():
    store = InMemoryStore()
    written(store, 3, "one", test_set="a")
    written(store, 2, "two", test_set="a")
    store.delete(promotion_log.key("two", 1))
    assert uses_of(store, "a") == 3


def test_a_field_of_a_later_version_is_ignored_and_the_chain_still_holds():
    store = InMemoryStore()
    log = written(store, 1)
    later = json.loads(store.get(promotion_log.key(NAME, 1))) | {"new": 1, "number": 2, "workflow": "run/2"}
    later["previous_sha256"] = log.digests[0]
    store.put(promotion_log.key(NAME, 2), json.dumps(later).encode())
    assert decide_and_append(store, NAME, "run/3", lambda log: outcome(3, "run/3")).number == 3
    assert len(read_log(store, NAME).entries) == 3


class OverwritingStore(InMemoryStore):
    """As a server that does not know `If-None-Match`."""

    def put_if(self, key: str, data: bytes, etag: str | None) -> str:
        return self.put(key, data).sha256


def test_a_server_that_ignores_conditional_writes_gets_no_entry():
    store = OverwritingStore()
    with pytest.raises(StorageRefused, match=r"in spite of If-None-Match: .* is not safe on it\. Use a server with"):
        decide_and_append(store, NAME, "run/1", lambda log: outcome())
    assert read_log(store, NAME).last is None
