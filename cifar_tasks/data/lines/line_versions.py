"""Which version of a dataset line a training takes."""

from cifar_tasks.data.lines.line_log import IN_USE, LineEntry, LineLog
from cifar_tasks.errors import ConfigError

VERSION_PATTERN = r"^([0-9]{1,6}|[0-9a-f]{8,64})$"
"""The number of an entry, or the beginning of a digest."""


def used_versions(log: LineLog) -> list[LineEntry]:
    """The entries that put a version in use for the first time, the oldest first."""
    first: dict[str, LineEntry] = {}
    for entry in log.entries:
        if entry.kind in IN_USE:
            first.setdefault(entry.dataset.digest, entry)
    return list(first.values())


def choose_version(log: LineLog, wanted: str | None = None) -> LineEntry:
    """The entry that put the version in use which a training takes: the one in use now, else the one that is wanted.

    `ConfigError` if there is none, or if it has never been in use: nobody trains on a quarantined version.
    """
    if not wanted:
        if entry := log.entry_in_use():
            return entry
        raise ConfigError(f"the dataset line {log.line} has no version in use. Start the DAG cifar10_dataset for it.")
    if len(wanted) > 6:
        digest = log.of_version(wanted).dataset.digest
    elif 1 <= int(wanted) <= len(log.entries):
        digest = log.entries[int(wanted) - 1].dataset.digest
    else:
        raise ConfigError(f"the log of the dataset line {log.line} has no entry {wanted}: it has {len(log.entries)}.")
    for entry in used_versions(log):
        if entry.dataset.digest == digest:
            return entry
    raise ConfigError(
        f"version {digest[:16]} of the dataset line {log.line} was never in use: it did not pass its validation. "
        f"Release it first: cifar data release {log.line}"
    )
