"""A lease on a piece of work, kept in object storage: of several processes that start it one does it, the others wait.

It is an object that its holder renews and that another process takes over once it has grown old by the server's own
clock (Gray and Cheriton, "Leases", SOSP 1989). Conditional writes decide between two that try at the same time.
"""

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ctypes import c_double
from dataclasses import dataclass
from multiprocessing.sharedctypes import RawValue

from cifar_tasks.errors import IntegrityError, LeaseLost, StorageError
from cifar_tasks.storage.s3 import ObjectStore, Snapshot, canonical_json

LOST = float("-inf")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Terms:
    """Seconds; the same for all who want a lease."""

    lasts: float = 60
    """Older than this it may be taken over. The retry of a training that was killed waits this long at most."""
    renewed_every: float = 10
    """Several renewals may fail before the holder gives up."""
    trusted_for: float = 40
    """How long the holder goes on without a renewal. Less than the lease lasts: training asks once a log interval, 5 s,
    between two steps, and has to have stopped when another one begins."""
    looked_at_every: float = 3
    """By those who wait; one read each."""


TERMS = Terms()


@dataclass(frozen=True)
class Hold:
    """What those ask who work under a lease. Can be given to processes that are being started."""

    uri: str
    until: c_double
    """Until when the lease is certainly ours, by `time.monotonic`, which all processes of a machine share."""

    def check(self) -> None:
        """Raise `LeaseLost` if another process may have the lease."""
        until = self.until.value
        if until == LOST:
            raise LeaseLost(f"another process has taken over {self.uri}: this one stops and leaves the work to it.")
        if time.monotonic() > until:
            raise LeaseLost(
                f"{self.uri} could not be renewed in time, so that another process may take it over: this one stops. "
                "Is storage reachable?"
            )


@contextmanager
def hold_lease(store: ObjectStore, key: str, terms: Terms = TERMS) -> Iterator[Hold]:
    """Wait until the lease `key` is free or its holder is dead, then hold it until the context is left.

    `store` must give up on a request well within the time for which a holder goes on without a renewal.
    """
    lease = _Lease(store, key, terms)
    lease.take()
    threading.Thread(target=lease.keep, name="lease", daemon=True).start()
    try:
        yield lease.hold
    finally:
        lease.release()


class _Lease:
    def __init__(self, store: ObjectStore, key: str, terms: Terms) -> None:
        self.hold = Hold(store.uri(key), RawValue(c_double, LOST))
        self._store, self._key, self._terms = store, key, terms
        self._owner = {"host": socket.gethostname(), "pid": os.getpid(), "token": uuid.uuid4().hex}
        self._writes, self._etag = 0, ""
        self._released = threading.Event()

    def take(self) -> None:
        told_of = None
        while True:
            there = None
            with suppress(KeyError):
                there = self._store.snapshot(self._key)
            if there is None or there.age > self._terms.lasts:
                with suppress(IntegrityError, KeyError):  # another one was faster
                    self._write(there.etag if there else None)
                    if there:
                        _log.warning("taking over from %s", _in_words(there))
                    return
            elif _owner(there) != told_of:
                told_of = _owner(there)
                _log.info("waiting: this is being done by %s", _in_words(there))
            time.sleep(self._terms.looked_at_every)

    def keep(self) -> None:
        """Renew until it is released or lost; for a thread."""
        while not self._released.wait(self._terms.renewed_every):
            try:
                self._renew()
            except (IntegrityError, KeyError):
                self.hold.until.value = LOST
                return
            except StorageError as error:
                _log.warning("the lease was not renewed: %s", error)

    def release(self) -> None:
        """Also ends the renewals: one under way cannot bring the object back, it only replaces."""
        self._released.set()
        if time.monotonic() > self.hold.until.value:
            return  # it may be another's
        try:
            self._store.delete(self._key)
        except StorageError as error:
            _log.warning("the lease was not released, others wait up to %g s for it: %s", self._terms.lasts, error)

    def _renew(self) -> None:
        try:
            self._write(self._etag)
        except IntegrityError:
            there = self._store.snapshot(self._key)
            if _owner(there) != self._owner:
                raise
            self._write(there.etag)  # an earlier renewal reached the server, its answer did not reach us

    def _write(self, etag: str | None) -> None:
        """Write what was never written before, hence with a new mark, in place of what has the mark `etag`."""
        began = time.monotonic()  # earlier than the server's time of writing: we give up before others take over
        self._writes += 1
        self._etag = self._store.put_if(self._key, canonical_json({"owner": self._owner, "writes": self._writes}), etag)
        self.hold.until.value = began + self._terms.trusted_for


def _owner(lease: Snapshot) -> dict[str, str]:
    return dict(json.loads(lease.data)["owner"])


def _in_words(lease: Snapshot) -> str:
    owner = _owner(lease)
    return f"process {owner['pid']} on {owner['host']}, last heard of {lease.age:.0f} s ago"
