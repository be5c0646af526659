"""The tasks of the DAG `cifar10_dataset`: check the source of a line, prepare a version, bring it into use."""

import logging

from cifar_tasks.data.lines.line_decisions import Decider, record_version
from cifar_tasks.data.lines.line_log import read_line_log
from cifar_tasks.data.lines.line_preparation import prepare_line
from cifar_tasks.data.lines.line_settings import DatasetLine
from cifar_tasks.data.lines.line_source import delivered_files, list_source, open_line_source
from cifar_tasks.data.lines.line_watch import begin_watch, look, mark_handled
from cifar_tasks.errors import ConfigError, SourceChanged, nearest
from cifar_tasks.settings import Settings
from cifar_tasks.steps.line_payloads import PreparedLine, RecordedVersion, SourceCheck
from cifar_tasks.steps.payloads import WorkflowRun
from cifar_tasks.storage.s3 import S3Store

_log = logging.getLogger(__name__)


def check_source(line: str, workflow: WorkflowRun) -> SourceCheck:
    """Is there something new? If so, this run is the one that waits for it."""
    settings = Settings()
    configured_line(settings, line)
    begin_watch(S3Store(settings.bucket), line, workflow.id)
    return await_delivery(line, workflow)


def await_delivery(line: str, workflow: WorkflowRun) -> SourceCheck:
    """Is the delivery complete?"""
    settings = Settings()
    configured, store = configured_line(settings, line), S3Store(settings.bucket)
    listing = list_source(open_line_source(configured, settings, _log.info), configured)
    found = look(store, line, configured, listing, workflow.id)
    _log.info("%s: %s", line, found.reason)
    return SourceCheck(line=line, status=found.status, reason=found.reason)


def prepare_version(line: str) -> PreparedLine:
    """The dataset version of what the source holds; it is in use only when its entry is in the log."""
    settings = Settings()
    configured, store = configured_line(settings, line), S3Store(settings.bucket)
    in_use = read_line_log(store, line).in_use()
    source = open_line_source(configured, settings, _log.info)
    delivered = delivered_files(source, configured, in_use is None, _log.info)
    found = look(store, line, configured, delivered.listing)
    if found.status == "waiting":
        raise SourceChanged(f"the source of {line} has changed again: {found.reason}. It is prepared when complete.")
    version = prepare_line(store, line, configured, delivered, in_use, _log.info)
    changed = in_use is None or in_use.digest != version.dataset.digest
    if not changed:
        mark_handled(store, line, version.delivery)
    for note in version.notes:
        _log.info("%s: %s", line, note)
    return PreparedLine(
        line=line,
        dataset=version.dataset,
        delivery=version.delivery,
        diff=version.diff,
        notes=version.notes,
        in_use=in_use,
        changed=changed,
    )


def accept_version(prepared: PreparedLine, workflow: WorkflowRun) -> RecordedVersion:
    """The version is in use from now on; a retry, or another run that prepared the same, finds the entry."""
    store, decider = S3Store(Settings().bucket), Decider(workflow.id, workflow.url)
    entry = record_version(store, prepared.line, "accepted", prepared.version, prepared.base, decider, prepared.notes)
    return RecordedVersion.of_entry(entry)


def version_in_use(line: str) -> RecordedVersion | None:
    """The entry that brought the version in use into use."""
    settings = Settings()
    configured_line(settings, line)
    entry = read_line_log(S3Store(settings.bucket), line).entry_in_use()
    return RecordedVersion.of_entry(entry) if entry else None


def configured_line(settings: Settings, line: str) -> DatasetLine:
    """`ConfigError` if the settings have no such line."""
    if line not in settings.dataset_lines:
        known = ", ".join(sorted(settings.dataset_lines)) or "none"
        raise ConfigError(
            f"there is no dataset line {line!r}{nearest(line, settings.dataset_lines)}. "
            f"CIFAR_DATASET_LINES has: {known}."
        )
    return settings.dataset_lines[line]
