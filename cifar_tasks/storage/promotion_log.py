"""The promotion log: one append-only chain of decisions for each registered model.

Entry n is the object `promotions/<registered model>/<n, 6 digits>.json`. It is written only where there is none
(`If-None-Match: *`), so that of two processes that decide at once one is first. It holds the SHA-256 of the entry
before, so that a change or a gap is noticed.
"""

import logging
import re
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from cifar_tasks.errors import IntegrityError, StorageError, StorageRefused
from cifar_tasks.storage.s3 import S3Store, canonical_json, sha256_hex

ROOT = "promotions"
Action = Literal["promote", "keep", "reject", "rollback", "manual"]
"""`reject`: a person said no, or nobody answered in time. `manual`: somebody moved an alias in MLflow."""
READERS = 16
"""Threads that read entries: each read waits for the server."""
ATTEMPTS = 20
"""Times that an entry is written anew after another process was first."""

_log = logging.getLogger(__name__)


class Outcome(BaseModel):
    """What was decided, and where the aliases are afterwards. Numbers are those of model versions."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    action: Action
    candidate: int | None
    """The version that was decided about."""
    champion: int | None
    previous: int | None
    challenger: int | None
    registry_created: int | None = None
    """When MLflow created the registered model, in ms: another one of the same name has other versions."""
    mode: str = ""
    reason: str = ""
    """Written by the person who started it."""
    who: str | None = None
    """The person who decided; none if a run did."""
    workflow: str | None = None
    """The run that decided; its retry finds this entry."""
    url: str | None = None
    """Of that run, or of the comparison."""
    test_set: str | None = None
    """Digest of the test images that were used."""
    uses: int = 0
    """Decisions with these test images so far, this one included."""
    decision: dict[str, Any] = {}
    """Evidence, limits and checks."""
    reasons: tuple[str, ...] = ()

    def aliases(self) -> dict[str, int | None]:
        return {"champion": self.champion, "previous": self.previous, "challenger": self.challenger}


class Entry(Outcome):
    """An outcome in its place in the chain. Fields of a later version of this product are ignored."""

    registered_model: str
    number: int
    """From 1."""
    previous_sha256: str | None
    """Of the entry before."""
    time: datetime


@dataclass(frozen=True)
class Log:
    """The entries of one registered model, and their digests."""

    registered_model: str
    entries: tuple[Entry, ...]
    digests: tuple[str, ...]

    @property
    def last(self) -> Entry | None:
        return self.entries[-1] if self.entries else None

    def of_workflow(self, workflow: str) -> Entry | None:
        """What a run decided. An alias that it noticed is not its decision."""
        return next((e for e in self.entries if e.workflow == workflow and e.action != "manual"), None)


def key(name: str, number: int) -> str:
    return f"{ROOT}/{name}/{number:06}.json"


def read_log(store: S3Store, name: str) -> Log:
    """Read and verify the chain; `IntegrityError` names the entry that is missing or was altered.

    Of the last entry only the anchor in MLflow can tell that (`cifar_tasks.tracking.aliases`).
    """
    count = _count(store, name)
    with ThreadPoolExecutor(READERS) as pool:
        found = list(pool.map(lambda number: _read(store, name, number), range(1, count + 1)))
    entries, digests = tuple(entry for entry, _ in found), tuple(digest for _, digest in found)
    for entry, digest in zip(entries[1:], digests, strict=False):
        if entry.previous_sha256 != digest:
            raise altered(store, name, entry.number - 1)
    return Log(name, entries, digests)


def append(store: S3Store, log: Log, outcome: Outcome) -> Log | None:
    """The log with one more entry; none if another process has written that entry meanwhile."""
    name, number = log.registered_model, len(log.entries) + 1
    entry = Entry(
        **dict(outcome),
        registered_model=name,
        number=number,
        previous_sha256=log.digests[-1] if log.digests else None,
        time=datetime.now(UTC),
    )
    data = canonical_json(entry.model_dump(mode="json"))
    _require_conditional_writes(store)
    try:
        store.put_if(key(name, number), data, None)
    except IntegrityError:
        return None
    return Log(name, (*log.entries, entry), (*log.digests, sha256_hex(data)))


def decide_and_append(store: S3Store, name: str, workflow: str, decide: Callable[[Log], Outcome]) -> Entry:
    """Decide on the log as it is and write the entry. If another process was first, `decide` is called again with the
    log that has its entry. The entry that an earlier try of the same run has written is returned as it is."""
    for _ in range(ATTEMPTS):
        log = read_log(store, name)
        if decided := log.of_workflow(workflow):
            return decided
        if written := append(store, log, decide(log)):
            return written.entries[-1]
    raise StorageError(f"the promotion log of {name} was written by others {ATTEMPTS} times meanwhile. Try again.")


def uses_of(store: S3Store, test_digest: str) -> int:
    """How many decisions, about all registered models, have used these test images.

    A damaged log is left out: it stops the promotions of its own model, and of no other.
    """
    uses = 0
    for name in _names(store):
        try:
            entries = read_log(store, name).entries
        except IntegrityError as error:
            _log.warning("its decisions are not counted: %s", error)
            continue
        uses += sum(
            entry.test_set == test_digest and entry.action in ("promote", "keep", "reject") for entry in entries
        )
    return uses


def altered(store: S3Store, name: str, number: int, what: str = "was altered") -> IntegrityError:
    """The error that names an entry and what to do."""
    return IntegrityError(
        f"entry {number} of the promotion log of {name} {what}: {store.uri(key(name, number))}. Restore this object "
        f"from a backup. To begin a new log move the folder {ROOT}/{name} away, and delete the tag cifar.promotion of "
        "the registered model in MLflow."
    )


def _count(store: S3Store, name: str) -> int:
    """The number of the last entry; every one before must be there."""
    numbers = sorted(number for found, number in _listed(store, f"{name}/") if found == name)
    for expected, number in enumerate(numbers, start=1):
        if number != expected:
            raise altered(store, name, expected, "is missing")
    return len(numbers)


def _names(store: S3Store) -> list[str]:
    return sorted({name for name, _ in _listed(store)})


def _listed(store: S3Store, prefix: str = "") -> Iterator[tuple[str, int]]:
    for found in store.keys(f"{ROOT}/{prefix}"):
        if entry := re.fullmatch(rf"{ROOT}/([^/]+)/(\d{{6}})\.json", found):
            yield entry[1], int(entry[2])


def _read(store: S3Store, name: str, number: int) -> tuple[Entry, str]:
    try:
        data = store.get(key(name, number))
        entry = Entry.model_validate_json(data)
    except KeyError:
        raise altered(store, name, number, "is missing") from None
    except (IntegrityError, ValidationError):
        raise altered(store, name, number) from None
    if (entry.registered_model, entry.number) != (name, number):
        raise altered(store, name, number)
    return entry, sha256_hex(data)


def _require_conditional_writes(store: S3Store) -> None:
    """A server that ignores `If-None-Match` would overwrite the entry of another process."""
    probe = f"{ROOT}/conditional-writes"
    if not store.exists(probe):
        store.put(probe, b"Tests whether the server overwrites this object in spite of If-None-Match.")
    try:
        store.put_if(probe, secrets.token_bytes(8), None)
    except IntegrityError:
        return
    raise StorageRefused(
        f"the S3 server overwrites {store.uri(probe)} in spite of If-None-Match: no promotion is safe on it. "
        "Use a server with conditional writes (SeaweedFS 4.48, AWS, MinIO, Ceph)."
    )
