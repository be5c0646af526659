"""What happens to a prepared version of a line: it is entered into the log once, whoever prepares it how often."""

from collections.abc import Sequence
from dataclasses import dataclass

from cifar_tasks.data.lines.line_log import (
    EntryKind,
    LineDataset,
    LineEntry,
    LineLog,
    LineOutcome,
    PreparedVersion,
    append_entry,
)
from cifar_tasks.data.lines.line_versions import used_versions
from cifar_tasks.data.lines.line_watch import mark_handled
from cifar_tasks.data.versions import whole_version
from cifar_tasks.errors import ConfigError, DataError, IntegrityError
from cifar_tasks.storage.s3 import S3Store


@dataclass(frozen=True)
class Decider:
    """Who decides."""

    workflow: str | None = None
    """A run: its retry finds its entry."""
    url: str | None = None
    by: str | None = None
    """A person."""
    reason: str = ""


def require_reason(decider: Decider) -> None:
    """`ConfigError` if a person gives none."""
    if not decider.reason.strip():
        raise ConfigError("give the reason (`--reason`): the log of the line keeps it.")


def overtaken(line: str) -> DataError:
    """What another run has brought into use stays: no retry of this run can pass."""
    return DataError(
        f"another run has changed the version in use of {line} meanwhile. "
        "Start the DAG cifar10_dataset for this line again."
    )


def record_version(
    store: S3Store,
    line: str,
    kind: EntryKind,
    version: PreparedVersion,
    base: str | None,
    decider: Decider,
    reasons: Sequence[str] = (),
) -> LineEntry:
    """Enter a version that was validated, `accepted` or `quarantined`; or find the entry that is there already.

    `base`: digest of the version in use that it was prepared and validated beside. Raises `DataError` if another
    run has brought another version into use since.
    """

    def decide(log: LineLog) -> LineOutcome | LineEntry:
        digest = version.dataset.digest
        own = log.of_workflow(decider.workflow, digest, "accepted", "quarantined") if decider.workflow else None
        if own and _digest(log.entry_in_use(own.number)) == base:  # else it was prepared again, beside another version
            return own
        if log.last and log.last.dataset.digest == digest:
            return log.last
        in_use = log.entry_in_use()
        if in_use and in_use.dataset.digest == digest:
            return in_use
        if _digest(in_use) != base:
            raise overtaken(line)
        return LineOutcome(
            kind=kind,
            dataset=version.dataset,
            delivery=version.delivery,
            diff=version.diff,
            reasons=tuple(reasons),
            workflow=decider.workflow,
            url=decider.url,
            by=decider.by,
            reason=decider.reason,
        )

    entry = append_entry(store, line, decide)
    mark_handled(store, line, version.delivery)
    return entry


def roll_back(store: S3Store, line: str, to: str | None, decider: Decider) -> LineEntry:
    """An older version is in use again: the one whose digest begins with `to`, or the one that was in use before.

    Raises `ConfigError` if there is none or no reason, `IntegrityError` if something of it is missing.
    """
    require_reason(decider)

    def decide(log: LineLog) -> LineOutcome:
        in_use = log.entry_in_use()
        if in_use is None:
            raise ConfigError(f"the dataset line {line} has no version in use yet.")
        if to is None:
            if len(history := log.history()) < 2:
                raise ConfigError(f"the dataset line {line} has no earlier version that was in use.")
            target = history[-2]
        else:
            target = log.of_version(to)
            if target.dataset.digest not in {entry.dataset.digest for entry in used_versions(log)}:
                raise ConfigError(f"the version {target.dataset.digest[:16]} of {line} was never in use.")
            if target.dataset.digest == in_use.dataset.digest:
                raise ConfigError(f"the version {target.dataset.digest[:16]} of {line} is in use already.")
        _check_whole(store, line, target.dataset)
        return LineOutcome(
            kind="rolled_back",
            dataset=target.dataset,
            delivery=target.delivery,
            by=decider.by,
            reason=decider.reason,
            workflow=decider.workflow,
            url=decider.url or target.url,
        )

    return append_entry(store, line, decide)


def _digest(entry: LineEntry | None) -> str | None:
    return entry.dataset.digest if entry else None


def _check_whole(store: S3Store, line: str, dataset: LineDataset) -> None:
    try:
        whole_version(store, dataset.digest, line)
        store.get(dataset.index, dataset.index_sha256)
    except KeyError as error:
        raise IntegrityError(f"{error.args[0]} is missing: {line} cannot go back. Restore it from a backup.") from None
