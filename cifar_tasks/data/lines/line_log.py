"""The log of a dataset line: which versions there were, and which one is in use. `lines/<line>/log/<number>.json`."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from cifar_tasks.errors import ConfigError
from cifar_tasks.storage.append_only_log import Chain, LogEntry, LogPlace, decide_entry, read_chain
from cifar_tasks.storage.s3 import S3Store

ROOT = "lines"
EntryKind = Literal["accepted", "quarantined", "released", "rejected", "rolled_back"]
"""`accepted`: passed validation. `released`, `rejected`: what a person decided about a quarantined version.
`rolled_back`: an older version is in use again."""
IN_USE: tuple[EntryKind, ...] = ("accepted", "released", "rolled_back")
"""Kinds of entries whose dataset version is in use from then on."""


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class LineDataset(_Value):
    """A dataset version of a line."""

    digest: str
    uri: str
    """Of the manifest."""
    counts: Mapping[str, Mapping[str, int]]
    """Images by split and class."""
    index: str
    """Key of the list of its images (`line_index.py`)."""
    index_sha256: str


class Delivery(_Value):
    """What the source held when a version was prepared."""

    objects: int
    listing: str
    """SHA-256 over names and marks of all objects."""
    marker: str | None = None
    """The mark of the object that completes a delivery."""


class DiffSummary(_Value):
    """Images that differ from the version in use before."""

    new: int = 0
    gone: int = 0
    relabelled: int = 0
    dropped: int = 0
    """Left out, because they stand in the frozen test set exactly or nearly."""
    unreadable: int = 0


@dataclass(frozen=True)
class PreparedVersion:
    """A version that is not in use yet."""

    dataset: LineDataset
    delivery: Delivery
    diff: DiffSummary
    notes: tuple[str, ...]
    """What a user should know."""


class LineOutcome(_Value):
    """What was decided about a version."""

    kind: EntryKind
    dataset: LineDataset
    delivery: Delivery
    diff: DiffSummary = DiffSummary()
    reasons: tuple[str, ...] = ()
    """Why the version was quarantined, or what a user should know about it."""
    by: str | None = None
    """The person who decided; none if the validation did."""
    reason: str = ""
    """Written by this person."""
    workflow: str | None = None
    """The run that decided; its retry finds this entry."""
    url: str | None = None
    """Of that run."""


class LineEntry(LineOutcome, LogEntry):
    """An outcome in its place in the log."""

    line: str


@dataclass(frozen=True)
class LineLog(Chain[LineEntry]):
    """The entries of one line."""

    line: str

    def in_use(self) -> LineDataset | None:
        """The version that trainings use; none before the first one was accepted."""
        entry = self.entry_in_use()
        return entry.dataset if entry else None

    def entry_in_use(self, before: int | None = None) -> LineEntry | None:
        """Now, or `before` the entry with this number was written."""
        return next((entry for entry in reversed(self._entries(before)) if entry.kind in IN_USE), None)

    def history(self, before: int | None = None) -> list[LineEntry]:
        """The versions that were in use one after another up to the one that `entry_in_use` names. A rollback removes
        those that came after its target."""
        found: list[LineEntry] = []
        for entry in self._entries(before):
            places = [place for place, each in enumerate(found) if each.dataset.digest == entry.dataset.digest]
            if entry.kind == "rolled_back" and places:
                del found[places[-1] + 1 :]
            elif entry.kind in IN_USE:
                found.append(entry)
        return found

    def _entries(self, before: int | None) -> Sequence[LineEntry]:
        return self.entries if before is None else self.entries[: before - 1]

    def of_workflow(self, workflow: str, digest: str, *kinds: EntryKind) -> LineEntry | None:
        """The last decision of a run, of one of these kinds, if it is about this version: a run that was cleared may
        have prepared another one."""
        own = next((e for e in reversed(self.entries) if e.workflow == workflow and e.kind in kinds), None)
        return own if own and own.dataset.digest == digest else None

    def of_version(self, digest: str) -> LineEntry:
        """The last entry about the version whose digest begins so; `ConfigError` if there are none or several."""
        found = {e.dataset.digest: e for e in self.entries if digest and e.dataset.digest.startswith(digest)}
        if len(found) == 1:
            return next(iter(found.values()))
        known = ", ".join(dict.fromkeys(entry.dataset.digest[:16] for entry in self.entries)) or "none"
        what = "several versions" if found else "no version"
        raise ConfigError(f"{what} of the dataset line {self.line} begin with {digest!r}. Its versions: {known}.")


def read_line_log(store: S3Store, line: str) -> LineLog:
    """Read and verify the log; `IntegrityError` names an entry that is missing or was altered."""
    return _log_of(line, read_chain(store, _place(line)))


def append_entry(store: S3Store, line: str, decide: Callable[[LineLog], LineOutcome | LineEntry]) -> LineEntry:
    """Decide on the log as it is, and write the outcome as an entry. An entry that is there already is returned.

    If another process was first, `decide` is called again with the log that has its entry.
    """

    def outcome(chain: Chain[LineEntry]) -> dict[str, Any] | LineEntry:
        decided = decide(_log_of(line, chain))
        return decided if isinstance(decided, LineEntry) else dict(decided)

    return decide_entry(store, _place(line), outcome)


def line_names(store: S3Store) -> list[str]:
    """Lines that have a log."""
    found = (re.fullmatch(rf"{ROOT}/([^/]+)/log/000001\.json", key) for key in store.keys(f"{ROOT}/"))
    return sorted(each[1] for each in found if each)


def _place(line: str) -> LogPlace[LineEntry]:
    remedy = f"To begin the line anew move the folder {ROOT}/{line} away."
    return LogPlace(f"{ROOT}/{line}/log", {"line": line}, LineEntry, f"the log of the dataset line {line}", remedy)


def _log_of(line: str, chain: Chain[LineEntry]) -> LineLog:
    return LineLog(chain.entries, chain.digests, line)
