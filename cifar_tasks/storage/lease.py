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
from cifar_tasks.storage.lease_terms import TERMS, LeaseTerms
from cifar_tasks.storage.s3 import S3Store, Snapshot, canonical_json

LOST = float("-inf")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Lease:
    """A lease that is held. It can be passed to processes that are being started."""

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
def acquire_lease(store: S3Store, key: str, terms: LeaseTerms = TERMS) -> Iterator[Lease]:
    """Wait until the lease `key` is free or its holder is dead, then hold it until the context is left.

    Requests of `store` must time out well within `trusted_for`.
    """
    holder = _Holder(store, key, terms)
    holder.acquire()
    threading.Thread(target=holder.keep_renewed, name="lease", daemon=True).start()
    try:
        yield holder.lease
    finally:
        holder.release()


class _Holder:
    def __init__(self, store: S3Store, key: str, terms: LeaseTerms) -> None:
        self.lease = Lease(store.uri(key), RawValue(c_double, LOST))
        self._store, self._key, self._terms = store, key, terms
        self._owner = {"host": socket.gethostname(), "pid": os.getpid(), "token": uuid.uuid4().hex}
        self._writes, self._etag = 0, ""
        self._released = threading.Event()

    def acquire(self) -> None:
        announced = None
        while True:
            found = None
            with suppress(KeyError):
                found = self._store.snapshot(self._key)
            if found is None or found.age > self._terms.ttl:
                with suppress(IntegrityError, KeyError):  # another process was faster
                    self._write(found.etag if found else None)
                    if found:
                        _log.warning("taking over from %s", _describe(found))
                    return
            elif _owner(found) != announced:
                announced = _owner(found)
                _log.info("waiting for %s, which does this work now", _describe(found))
            time.sleep(self._terms.poll_interval)

    def keep_renewed(self) -> None:
        """Renew until it is released or lost; for a thread."""
        while not self._released.wait(self._terms.renew_interval):
            try:
                self._renew()
            except (IntegrityError, KeyError):
                self.lease.until.value = LOST
                return
            except StorageError as error:
                _log.warning("the lease was not renewed: %s", error)

    def release(self) -> None:
        """Also ends the renewals: one under way cannot bring the object back, it only replaces."""
        self._released.set()
        if time.monotonic() > self.lease.until.value:
            return  # it may be another's
        try:
            self._store.delete(self._key)
        except StorageError as error:
            _log.warning("the lease was not released, others wait up to %g s for it: %s", self._terms.ttl, error)

    def _renew(self) -> None:
        try:
            self._write(self._etag)
        except IntegrityError:
            found = self._store.snapshot(self._key)
            if _owner(found) != self._owner:
                raise
            self._write(found.etag)  # an earlier renewal reached the server, but its response was lost

    def _write(self, etag: str | None) -> None:
        """Write new content, hence with a new ETag, in place of the content that has the ETag `etag`."""
        began = time.monotonic()  # before the server writes: the holder gives up before others take over
        self._writes += 1
        self._etag = self._store.put_if(self._key, canonical_json({"owner": self._owner, "writes": self._writes}), etag)
        self.lease.until.value = began + self._terms.trusted_for


def _owner(lease: Snapshot) -> dict[str, str]:
    """Empty if somebody has altered the object: then it is a lease like any other, until it is old enough."""
    try:
        return dict(json.loads(lease.data)["owner"])
    except (KeyError, TypeError, ValueError):
        return {}


def _describe(lease: Snapshot) -> str:
    owner = _owner(lease)
    return f"process {owner.get('pid', '?')} on {owner.get('host', '?')}, last renewed {lease.age:.0f} s ago"
