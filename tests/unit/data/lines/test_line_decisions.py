"""A version is entered into the log once, and an older one can be in use again."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from cifar_tasks.data.lines.line_decisions import Decider, record_version, roll_back
from cifar_tasks.data.lines.line_log import LineEntry, read_line_log
from cifar_tasks.data.lines.line_settings import DatasetLine
from cifar_tasks.data.lines.line_watch import look
from cifar_tasks.errors import ConfigError, DataError, IntegrityError
from tests.dataset_lines import LINE, deliver, first_delivery, picture, prepared
from tests.stores import InMemoryStore


def record(store, version, workflow="dag/1", kind="accepted", base=None) -> LineEntry:
    decider = Decider(workflow, "http://airflow")
    return record_version(store, LINE, kind, version, base, decider)


@pytest.fixture
def versions(tmp_path):
    """Three versions in use, one after another, in a store."""
    store, root, found = InMemoryStore(), first_delivery(tmp_path / "source"), []
    for number in range(3):
        deliver(root, f"train/ant/a{number}.png", picture(500 + number))
        version = prepared(store, root)
        record(store, version, f"dag/{number}", base=found[-1].dataset.digest if found else None)
        found.append(version)
    return store, found


def in_use(store) -> str:
    return read_line_log(store, LINE).in_use().digest


def test_a_retry_and_another_run_of_the_same_version_find_its_entry(versions):
    store, (_, second, third) = versions
    before = read_line_log(store, LINE)
    for workflow in ("dag/2", "dag/9"):
        assert record(store, third, workflow, base=second.dataset.digest) == before.last
    assert read_line_log(store, LINE) == before


def test_a_run_that_was_cleared_after_the_source_changed_enters_the_version_that_it_prepared_now(versions, tmp_path):
    store, found = versions
    root = tmp_path / "source"
    for number in (700, 701):
        deliver(root, f"train/bee/{number}.png", picture(number))
        new = prepared(store, root)
        entry = record(store, new, "dag/2", base=found[-1].dataset.digest)
        assert (entry.dataset.digest, entry.workflow) == (new.dataset.digest, "dag/2")
        assert in_use(store) == new.dataset.digest
        found.append(new)


def test_a_run_that_was_cleared_after_another_one_enters_the_version_that_it_had_accepted_before(versions):
    store, (first, second, third) = versions
    entry = record(store, first, "dag/0", base=third.dataset.digest)
    assert (entry.number, in_use(store)) == (4, first.dataset.digest)
    assert record(store, second, "dag/1", base=first.dataset.digest).number == 2, "a retry of an earlier run"


def test_rollbacks_follow_the_order_of_use_also_of_a_version_that_came_twice(versions):
    store, (first, second, third) = versions
    record(store, first, "dag/8", base=third.dataset.digest)
    record(store, second, "dag/9", base=first.dataset.digest)
    back = [roll_back(store, LINE, None, Decider(by="Ada", reason="grey")).dataset.digest for _ in range(4)]
    assert back == [each.dataset.digest for each in (first, third, second, first)]


def test_of_two_runs_at_once_one_writes_the_entry(tmp_path):
    store = InMemoryStore()
    version, at_once = prepared(store, first_delivery(tmp_path / "source")), Barrier(6)

    def run(number: int) -> LineEntry:
        at_once.wait()
        return record(store, version, f"dag/{number}")

    with ThreadPoolExecutor(6) as pool:
        entries = list(pool.map(run, range(6)))
    assert all(entry == entries[0] for entry in entries)
    assert len(read_line_log(store, LINE).entries) == 1


def test_a_version_that_was_prepared_beside_another_one_than_that_in_use_is_not_entered(versions, tmp_path):
    store, (first, _, _) = versions
    late = prepared(store, first_delivery(tmp_path / "late", 30))
    with pytest.raises(DataError, match="another run has changed the version in use of pets") as caught:
        record(store, late, "dag/9", base=first.dataset.digest)
    assert not caught.value.retryable
    assert len(read_line_log(store, LINE).entries) == 3


def test_what_was_quarantined_is_not_in_use_and_its_delivery_is_not_looked_at_again(versions, tmp_path):
    store, found = versions
    bad = prepared(store, first_delivery(tmp_path / "bad", 30))
    record(store, bad, "dag/9", "quarantined", found[-1].dataset.digest)
    assert in_use(store) == found[-1].dataset.digest
    listing = bad.delivery
    store.put("lines/pets/watch/seen.json", b"{}")

    class Listed:
        digest, marks, marker = listing.listing, {}, None

    assert look(store, LINE, DatasetLine(source="/x"), Listed()).status == "unchanged"


def test_rollbacks_go_back_version_by_version_and_to_a_named_one(versions):
    store, found = versions
    digests = [version.dataset.digest for version in found]
    who = Decider(by="Ada", reason="grey pictures")
    assert roll_back(store, LINE, None, who).dataset.digest == digests[1] == in_use(store)
    assert roll_back(store, LINE, None, who).dataset.digest == digests[0] == in_use(store)
    with pytest.raises(ConfigError, match="no earlier version"):
        roll_back(store, LINE, None, who)
    entry = roll_back(store, LINE, digests[2][:8], who)
    assert (entry.kind, entry.by, entry.reason, in_use(store)) == ("rolled_back", "Ada", "grey pictures", digests[2])
    assert entry.url == "http://airflow", "of the delivery"
    with pytest.raises(ConfigError, match="in use already"):
        roll_back(store, LINE, digests[2], who)


def test_a_rollback_does_not_lead_to_the_version_that_was_rolled_back(versions, tmp_path):
    store, (_, good, bad) = versions
    who = Decider(by="Ada", reason="grey pictures")
    roll_back(store, LINE, None, who)
    deliver(tmp_path / "source", "train/bee/b.png", picture(700))
    (tmp_path / "source" / "train/ant/a2.png").unlink()
    newest = prepared(store, tmp_path / "source")
    record(store, newest, "dag/7", base=good.dataset.digest)
    assert roll_back(store, LINE, None, who).dataset.digest == good.dataset.digest
    roll_back(store, LINE, bad.dataset.digest, who)
    assert roll_back(store, LINE, None, who).dataset.digest == good.dataset.digest, "in use before"


def test_no_rollback_to_what_was_never_in_use_or_is_not_whole(versions, tmp_path):
    store, found = versions
    bad = prepared(store, first_delivery(tmp_path / "bad", 30))
    record(store, bad, "dag/9", "quarantined", found[-1].dataset.digest)
    who = Decider(by="Ada", reason="grey pictures")
    with pytest.raises(ConfigError, match="was never in use"):
        roll_back(store, LINE, bad.dataset.digest, who)
    with pytest.raises(ConfigError, match="has no version in use yet"):
        roll_back(store, "other", None, who)
    store.delete(found[1].dataset.index)
    with pytest.raises(IntegrityError, match=r"is missing: pets cannot go back"):
        roll_back(store, LINE, None, who)
    assert in_use(store) == found[-1].dataset.digest


def test_another_run_with_a_quarantined_version_finds_its_entry_and_does_not_accept_it(versions, tmp_path):
    store, found = versions
    bad, base = prepared(store, first_delivery(tmp_path / "bad", 30)), found[-1].dataset.digest
    quarantined = record(store, bad, "dag/9", "quarantined", base)
    assert record(store, bad, "dag/10", "accepted", base) == quarantined
    assert in_use(store) == base
