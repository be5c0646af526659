"""Append-only logs in object storage: a chain of entries in which a change or a gap is noticed.

Entry n is the object `<folder>/<n, 6 digits>.json`. It is written only where there is none (`If-None-Match: *`), so
that of two processes that write at once one is first. It holds the SHA-256 of the entry before.
"""

import re
import secrets
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from cifar_tasks.errors import IntegrityError, StorageError, StorageRefused
from cifar_tasks.storage.s3 import S3Store, canonical_json, sha256_hex

READERS = 16
"""Threads that read entries: each read waits for the server."""
ATTEMPTS = 20
"""Times that an entry is written anew after another process was first."""


class LogEntry(BaseModel):
    """Its place in the chain. Fields of a later version of this product are ignored."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    number: int
    """From 1."""
    previous_sha256: str | None
    """Of the entry before."""
    time: datetime


Written = TypeVar("Written", bound=LogEntry)


@dataclass(frozen=True)
class LogPlace(Generic[Written]):
    """Where a log is and what its entries are."""

    folder: str
    owner: Mapping[str, str]
    """Fields of every entry that say which log it belongs to."""
    kind: type[Written]
    title: str
    """In messages: `the promotion log of NAME`."""
    remedy: str
    """How to begin a new log."""

    def key(self, number: int) -> str:
        return f"{self.folder}/{number:06}.json"

    def altered(self, store: S3Store, number: int, what: str = "was altered") -> IntegrityError:
        """The error that names an entry and what to do."""
        where = store.uri(self.key(number))
        return IntegrityError(
            f"entry {number} of {self.title} {what}: {where}. Restore this object from a backup. {self.remedy}"
        )


@dataclass(frozen=True)
class Chain(Generic[Written]):
    """The entries of a log, and their digests."""

    entries: tuple[Written, ...]
    digests: tuple[str, ...]

    @property
    def last(self) -> Written | None:
        return self.entries[-1] if self.entries else None


def read_chain(store: S3Store, place: LogPlace[Written]) -> Chain[Written]:
    """Read and verify the chain; `IntegrityError` names the entry that is missing or was altered.

    An altered last entry is noticed only by what is kept elsewhere.
    """
    count = _count(store, place)
    with ThreadPoolExecutor(READERS) as pool:
        found = list(pool.map(lambda number: _read(store, place, number), range(1, count + 1)))
    entries, digests = tuple(entry for entry, _ in found), tuple(digest for _, digest in found)
    for entry, digest in zip(entries[1:], digests, strict=False):
        if entry.previous_sha256 != digest:
            raise place.altered(store, entry.number - 1)
    return Chain(entries, digests)


def append_to(
    store: S3Store, place: LogPlace[Written], chain: Chain[Written], fields: Mapping[str, Any]
) -> Chain[Written] | None:
    """The chain with one more entry; none if another process has written that entry meanwhile."""
    number = len(chain.entries) + 1
    entry = place.kind(
        **fields,
        **place.owner,
        number=number,
        previous_sha256=chain.digests[-1] if chain.digests else None,
        time=datetime.now(UTC),
    )
    data = canonical_json(entry.model_dump(mode="json"))
    _require_conditional_writes(store, place)
    try:
        store.put_if(place.key(number), data, None)
    except IntegrityError:
        return None
    return Chain((*chain.entries, entry), (*chain.digests, sha256_hex(data)))


def decide_entry(
    store: S3Store, place: LogPlace[Written], decide: Callable[[Chain[Written]], Mapping[str, Any] | Written]
) -> Written:
    """Decide on the log as it is and write the entry with these fields, or return the entry that is there already.

    If another process was first, `decide` is called again with the log that has its entry.
    """
    for _ in range(ATTEMPTS):
        chain = read_chain(store, place)
        decided = decide(chain)
        if isinstance(decided, LogEntry):
            return decided
        if written := append_to(store, place, chain, decided):
            return written.entries[-1]
    raise StorageError(f"{place.title} was written by others {ATTEMPTS} times meanwhile. Try again.")


def _count(store: S3Store, place: LogPlace[Written]) -> int:
    """The number of the last entry; every one before must be there."""
    found = (re.fullmatch(r"(\d{6})\.json", key[len(place.folder) + 1 :]) for key in store.keys(f"{place.folder}/"))
    numbers = sorted(int(number[1]) for number in found if number)
    for expected, number in enumerate(numbers, start=1):
        if number != expected:
            raise place.altered(store, expected, "is missing")
    return len(numbers)


def _read(store: S3Store, place: LogPlace[Written], number: int) -> tuple[Written, str]:
    try:
        data = store.get(place.key(number))
        entry = place.kind.model_validate_json(data)
    except KeyError:
        raise place.altered(store, number, "is missing") from None
    except (IntegrityError, ValidationError):
        raise place.altered(store, number) from None
    if entry.number != number or any(getattr(entry, field) != value for field, value in place.owner.items()):
        raise place.altered(store, number)
    return entry, sha256_hex(data)


def _require_conditional_writes(store: S3Store, place: LogPlace[Written]) -> None:
    """A server that ignores `If-None-Match` would overwrite the entry of another process."""
    probe = f"{place.folder.split('/')[0]}/conditional-writes"
    if not store.exists(probe):
        store.put(probe, b"Tests whether the server overwrites this object in spite of If-None-Match.")
    try:
        store.put_if(probe, secrets.token_bytes(8), None)
    except IntegrityError:
        return
    raise StorageRefused(
        f"the S3 server overwrites {store.uri(probe)} in spite of If-None-Match: {place.title} is not safe on it. "
        "Use a server with conditional writes (SeaweedFS 4.48, AWS, MinIO, Ceph)."
    )
