"""Of several that want one lease one has it: the others wait, and one that lost it stops."""

import json
import logging
import multiprocessing
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from cifar_tasks.errors import IntegrityError, LeaseLost, Stopped, StorageError
from cifar_tasks.storage.lease import TERMS, Lease, LeaseTerms, acquire_lease
from cifar_tasks.storage.lease_callback import LeaseCallback
from tests.stores import FailingStore, InMemoryStore
from tests.waiting import wait_until

KEY = "runs/1/lease.json"
ANOTHERS = json.dumps({"owner": {"host": "gone", "pid": 7, "token": "x"}, "writes": 3}).encode()
QUICK = LeaseTerms(renew_interval=0.02, poll_interval=0.02)
IMPATIENT = LeaseTerms(renew_interval=0.02, trusted_for=2, poll_interval=0.02)


def lasting(condition, seconds: float = 10) -> bool:
    """Whether it comes true."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def error_of(lease: Lease) -> LeaseLost:
    """What the holder hears, once it hears it."""

    def lost() -> bool:
        try:
            lease.check()
        except LeaseLost:
            return True
        return False

    assert lasting(lost)
    with pytest.raises(LeaseLost) as caught:
        lease.check()
    return caught.value


def leave_stale(store: InMemoryStore) -> None:
    """As a holder that was killed leaves it, a while later."""
    store.put(KEY, ANOTHERS)
    store.written[KEY] -= QUICK.ttl + 1


@pytest.fixture
def store() -> InMemoryStore:
    return InMemoryStore()


@pytest.mark.parametrize("stale", [False, True])
def test_of_several_that_want_it_at_once_one_has_it_at_a_time_and_each_gets_it(store, stale):
    if stale:
        leave_stale(store)
    together, holding, seen = threading.Barrier(5), [], []

    def work(number: int) -> None:
        together.wait()
        with acquire_lease(store, KEY, QUICK) as lease:
            holding.append(number)
            seen.append(list(holding))
            time.sleep(0.05)
            lease.check()
            holding.remove(number)

    with ThreadPoolExecutor(5) as pool:
        list(pool.map(work, range(5)))
    assert sorted(seen) == [[number] for number in range(5)]
    assert not store.exists(KEY)


def test_it_is_renewed_while_it_is_held(store):
    with acquire_lease(store, KEY, IMPATIENT) as lease:
        time.sleep(2 * IMPATIENT.trusted_for)
        lease.check()
        assert store.snapshot(KEY).age < IMPATIENT.trusted_for


def test_it_says_who_has_it_and_nothing_else(store):
    with acquire_lease(store, KEY, LeaseTerms()):
        lease = json.loads(store.get(KEY))
    assert lease.keys() == {"owner", "writes"}
    assert lease["owner"].keys() == {"host", "pid", "token"}
    assert lease["owner"]["pid"] == os.getpid()


@pytest.mark.parametrize("ending", [ValueError, Stopped])
def test_it_is_released_however_the_work_ends(store, ending):
    with pytest.raises(ending), acquire_lease(store, KEY, QUICK):
        raise ending
    assert not store.exists(KEY)


def test_storage_that_fails_at_the_release_does_not_spoil_the_work(store, monkeypatch, caplog):
    def fail(key: str) -> None:
        raise StorageError("storage did not answer")

    with acquire_lease(store, KEY, QUICK):
        monkeypatch.setattr(store, "delete", fail)
    assert "others wait up to 60 s" in caplog.text


def test_one_that_waits_says_once_for_whom(store, caplog):
    def wait() -> None:
        with acquire_lease(store, KEY, QUICK):
            waited.set()

    waited = threading.Event()
    with caplog.at_level(logging.INFO):
        with acquire_lease(store, KEY, QUICK):
            waiting = threading.Thread(target=wait)
            waiting.start()
            wait_until(lambda: caplog.messages)
            assert not waited.is_set()
        assert waited.wait(60)
        waiting.join()
    (line,) = caplog.messages
    assert line.startswith(f"waiting for process {os.getpid()} on ")
    assert re.search(r"last renewed \d+ s ago, which does this work now$", line)


def test_a_stale_one_is_taken_over_and_it_is_said_from_whom(store, caplog):
    leave_stale(store)
    with acquire_lease(store, KEY, QUICK) as lease:
        lease.check()
    assert caplog.messages == ["taking over from process 7 on gone, last renewed 61 s ago"]


def test_one_that_waits_is_stopped_at_once(store, caplog):
    caplog.set_level(logging.INFO)
    told: list[float] = []

    def stop(number: int, frame: object) -> None:
        raise Stopped

    def stop_when_it_waits() -> None:
        lasting(lambda: "waiting for process" in caplog.text)
        told.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        with acquire_lease(store, KEY, QUICK):
            threading.Thread(target=stop_when_it_waits).start()
            with pytest.raises(Stopped), acquire_lease(store, KEY, LeaseTerms(poll_interval=30)):
                pytest.fail("it was taken while another one held it")
            assert time.monotonic() - told[0] < 20
            assert store.exists(KEY)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_holder_whose_lease_was_taken_over_stops_and_leaves_it_to_the_other(store):
    with acquire_lease(store, KEY, QUICK) as lease:
        store.put(KEY, ANOTHERS)
        assert "another process has taken over memory://runs/1/lease.json" in str(error_of(lease))
    assert store.get(KEY) == ANOTHERS
    assert LeaseLost.retryable


def test_a_holder_whose_lease_was_deleted_stops_and_does_not_write_it_again(store):
    with acquire_lease(store, KEY, QUICK) as lease:
        store.delete(KEY)
        error_of(lease)
    assert not store.exists(KEY)


def test_a_holder_stops_when_storage_is_away_for_too_long():
    store = FailingStore(fails_at=2)
    with acquire_lease(store, KEY, IMPATIENT) as lease:
        lease.check()
        assert "could not be renewed in time" in str(error_of(lease))
    assert store.exists(KEY)  # it may be another's by now


def test_a_holder_survives_storage_that_is_away_for_a_while(caplog):
    store = FailingStore(fails_at=2)
    with acquire_lease(store, KEY, LeaseTerms(renew_interval=0.02)) as lease:
        assert lasting(lambda: "the lease was not renewed" in caplog.text)
        store.repair()
        assert lasting(lambda: len(store.writes) > 3)
        lease.check()


class LosesAnswers(InMemoryStore):
    """Every second conditional write is done, but nobody hears of it."""

    def put_if(self, key: str, data: bytes, etag: str | None) -> str:
        written = super().put_if(key, data, etag)
        if len(self.writes) % 2 == 0:
            raise StorageError("storage did not answer")
        return written


def test_a_renewal_whose_answer_is_lost_is_no_loss():
    store = LosesAnswers()
    with acquire_lease(store, KEY, QUICK) as lease:
        assert lasting(lambda: len(store.writes) > 10)
        lease.check()
    assert not store.exists(KEY)


def test_who_saw_it_before_a_renewal_cannot_take_it_over(store):
    with acquire_lease(store, KEY, QUICK) as lease:
        seen = store.snapshot(KEY).etag
        assert lasting(lambda: store.snapshot(KEY).etag != seen)
        with pytest.raises(IntegrityError):
            store.put_if(KEY, ANOTHERS, seen)
        lease.check()


def test_a_process_that_was_frozen_hears_of_it_before_it_could_renew(store):
    with acquire_lease(store, KEY, LeaseTerms(trusted_for=0.1)) as lease:
        time.sleep(0.2)
        with pytest.raises(LeaseLost):
            lease.check()


def check_when_told(lease: Lease, told: object, answers: object) -> None:
    """In another process."""
    lease.check()
    answers.put("held")
    told.wait()
    try:
        lease.check()
    except LeaseLost as error:
        answers.put(str(error))


@contextmanager
def another_process(lease: Lease) -> Iterator[tuple]:
    context = multiprocessing.get_context("spawn")
    told, answers = context.Event(), context.Queue()
    process = context.Process(target=check_when_told, args=(lease, told, answers))
    process.start()
    try:
        yield told, answers
    finally:
        process.kill()
        process.join()


def test_processes_that_were_started_under_it_hear_of_its_loss(store):
    with acquire_lease(store, KEY, QUICK) as lease, another_process(lease) as (told, answers):
        assert answers.get(timeout=30) == "held"
        store.put(KEY, ANOTHERS)
        error_of(lease)
        told.set()
        assert "another process has taken over" in answers.get(timeout=10)


def test_a_holder_has_stopped_before_another_process_may_begin():
    between_checks = 5  # seconds: training checks its lease whenever it logs
    assert TERMS.trusted_for + 2 * between_checks < TERMS.ttl <= 60
    assert 3 * TERMS.renew_interval <= TERMS.trusted_for


@pytest.mark.parametrize("moment", ["on_step", "on_epoch_end"])
def test_a_training_stops_at_the_first_step_or_epoch_without_its_lease(store, moment):
    with acquire_lease(store, KEY, QUICK) as lease:
        check = getattr(LeaseCallback(lease), moment)
        check(None)
        store.put(KEY, ANOTHERS)
        error_of(lease)
        with pytest.raises(LeaseLost):
            check(None)


@pytest.mark.parametrize("content", [b"", b"no json", b"[]", b"null", b'{"owner": 1}', b"\xff"])
def test_a_lease_that_was_altered_is_taken_over_when_it_is_old_enough(content, caplog):
    store = InMemoryStore()
    store.put("lease", content)
    with acquire_lease(store, "lease", LeaseTerms(ttl=0.3, poll_interval=0.1)) as lease:
        lease.check()
    assert "taking over from process ? on ?" in caplog.text
