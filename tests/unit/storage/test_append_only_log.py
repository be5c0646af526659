"""Any append-only log: fields of its own, and entries that belong to it alone. The chain: `test_promotion_log.py`."""

import pytest

from cifar_tasks.errors import IntegrityError, StorageError
from cifar_tasks.storage.append_only_log import ATTEMPTS, Chain, LogEntry, LogPlace, append_to, decide_entry, read_chain
from cifar_tasks.storage.s3 import S3Store
from tests.stores import InMemoryStore


class Harvest(LogEntry):
    field: str
    tons: int


def place(field: str) -> LogPlace[Harvest]:
    return LogPlace(f"farm/{field}/log", {"field": field}, Harvest, f"the log of {field}", "Begin a new one.")


def written(store: S3Store, field: str, *tons: int) -> Chain[Harvest]:
    for each in tons:
        append_to(store, place(field), read_chain(store, place(field)), {"tons": each})
    return read_chain(store, place(field))


def test_entries_have_the_fields_of_their_log_and_other_objects_beside_them_are_ignored():
    store = InMemoryStore()
    store.put("farm/north/log/readme.txt", b"not an entry")
    chain = written(store, "north", 3, 4)
    assert [(entry.number, entry.field, entry.tons) for entry in chain.entries] == [(1, "north", 3), (2, "north", 4)]
    assert chain.entries[1].previous_sha256 == chain.digests[0]
    assert read_chain(store, place("nort")).last is None


def test_an_entry_of_another_log_is_named_with_the_remedy_of_this_log():
    store = InMemoryStore()
    written(store, "north", 3)
    written(store, "south", 5)
    store.put(place("south").key(1), store.get(place("north").key(1)))
    with pytest.raises(IntegrityError, match=r"entry 1 of the log of south was altered: .* Begin a new one\."):
        read_chain(store, place("south"))


def test_a_log_that_others_always_write_first_ends_in_an_error_that_a_retry_may_mend():
    store = InMemoryStore()

    def decide(chain: Chain[Harvest]) -> dict[str, int]:
        append_to(store, place("north"), chain, {"tons": 1})
        return {"tons": 2}

    with pytest.raises(StorageError, match=f"the log of north was written by others {ATTEMPTS} times meanwhile"):
        decide_entry(store, place("north"), decide)
    assert {entry.tons for entry in read_chain(store, place("north")).entries} == {1}
