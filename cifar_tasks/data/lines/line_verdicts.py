"""What a person decides about a quarantined version: release it, or reject it. Both stand in the log of the line."""

from cifar_tasks.data.lines.line_decisions import Decider, require_reason
from cifar_tasks.data.lines.line_log import EntryKind, LineEntry, LineLog, LineOutcome, append_entry
from cifar_tasks.data.versions import whole_version
from cifar_tasks.errors import ConfigError, IntegrityError
from cifar_tasks.storage.s3 import S3Store


def release(store: S3Store, line: str, version: str | None, decider: Decider) -> LineEntry:
    """The quarantined version whose digest begins so is in use from now on; without one, the one that waits.

    `ConfigError` if it does not wait, or if the version in use has changed since it was checked; `IntegrityError` if
    something of it is missing.
    """
    return _decide(store, line, version, "released", decider)


def reject(store: S3Store, line: str, version: str | None, decider: Decider) -> LineEntry:
    """The quarantined version is never used; the one in use stays."""
    return _decide(store, line, version, "rejected", decider)


def waiting(log: LineLog) -> list[LineEntry]:
    """Quarantined versions that nobody has decided about, the oldest first."""
    last = {entry.dataset.digest: entry for entry in log.entries}
    return [entry for entry in last.values() if entry.kind == "quarantined"]


def _decide(store: S3Store, line: str, version: str | None, kind: EntryKind, decider: Decider) -> LineEntry:
    require_reason(decider)

    def decide(log: LineLog) -> LineOutcome | LineEntry:
        if decider.workflow and version and (own := log.of_workflow(decider.workflow, version, "released", "rejected")):
            return own
        entry = _waiting_entry(log, version)
        if kind == "released":
            _check_base(log, entry)
            _check_whole(store, line, entry)
        return LineOutcome(
            kind=kind,
            dataset=entry.dataset,
            delivery=entry.delivery,
            diff=entry.diff,
            reasons=entry.reasons,
            by=decider.by,
            reason=" ".join(decider.reason.split()),
            workflow=decider.workflow,
            url=decider.url or entry.url,
        )

    return append_entry(store, line, decide)


def _waiting_entry(log: LineLog, version: str | None) -> LineEntry:
    if version is not None:
        entry = log.of_version(version)
        if entry.kind != "quarantined":
            raise ConfigError(
                f"the version {entry.dataset.digest[:16]} of {log.line} is not waiting: it is {entry.kind}."
            )
        return entry
    entries = waiting(log)
    if len(entries) == 1:
        return entries[0]
    if not entries:
        raise ConfigError(f"no version of the dataset line {log.line} is quarantined. See: cifar data show {log.line}")
    known = ", ".join(entry.dataset.digest[:16] for entry in entries)
    raise ConfigError(f"several versions of {log.line} are quarantined, name one of them: {known}.")


def _check_base(log: LineLog, entry: LineEntry) -> None:
    """A version lacks what has come into use since it was prepared. A rollback to an older one adds nothing."""
    in_use = log.entry_in_use()
    known = {each.dataset.digest for each in log.history(entry.number)}
    if in_use and in_use.dataset.digest not in known:
        raise ConfigError(
            f"another version of {log.line} has come into use since {entry.dataset.digest[:16]} was quarantined "
            f"(entry {in_use.number}). Reject it, and check the source again: start the DAG cifar10_dataset."
        )


def _check_whole(store: S3Store, line: str, entry: LineEntry) -> None:
    try:
        whole_version(store, entry.dataset.digest, line)
        store.get(entry.dataset.index, entry.dataset.index_sha256)
    except KeyError as error:
        raise IntegrityError(
            f"{error.args[0]} is missing: the version cannot be released. Restore it from a backup, or reject it."
        ) from None
