"""Validation of a dataset version of a line, and what becomes of one that fails."""

import logging

from cifar_tasks.data.lines.line_decisions import Decider, overtaken, record_version
from cifar_tasks.data.lines.line_log import read_line_log
from cifar_tasks.data.lines.line_snapshot import load_snapshot
from cifar_tasks.data.lines.line_verdicts import reject, release, waiting
from cifar_tasks.data.quality.quality_checks import check
from cifar_tasks.data.quality.quality_figure import quality_figure
from cifar_tasks.data.quality.quality_page import quality_markdown
from cifar_tasks.data.quality.quality_report import QualityReport
from cifar_tasks.data.quality.snapshot import Snapshot
from cifar_tasks.settings import Settings
from cifar_tasks.steps.line_payloads import PreparedLine, RecordedVersion, ValidatedLine, Verdict
from cifar_tasks.steps.payloads import WorkflowRun
from cifar_tasks.storage.s3 import S3Store
from cifar_tasks.tracking import runs
from cifar_tasks.tracking.approval_figures import keep_figure
from cifar_tasks.tracking.delivery_reports import champion_predictions, keep_report

_log = logging.getLogger(__name__)


def validate_dataset(prepared: PreparedLine, workflow: WorkflowRun) -> ValidatedLine:
    """Check the version against the one in use and keep the report. The log of the line does not change."""
    settings, client = Settings(), runs.mlflow_client()
    store, cache = S3Store(settings.bucket), settings.home / "cache"
    log = read_line_log(store, prepared.line)
    if log.in_use() != prepared.in_use:
        raise overtaken(prepared.line)
    new = load_snapshot(store, prepared.dataset, cache)
    in_use = load_snapshot(store, prepared.in_use, cache) if prepared.in_use else None
    with runs.tracking_errors():
        predictions = champion_predictions(client, store, log, new, in_use)
        report = check(new, in_use, settings.dataset_limits, predictions)
        url = keep_report(client, store, prepared.line, prepared.dataset, new, report, workflow.url)
        shown = quality_markdown(report, _figure(store, report, new))
    for row in report.rows:
        _log.log(logging.INFO if row.passed else logging.WARNING, "%s", row.text)
    _log.info("report: %s", url)
    return ValidatedLine(
        prepared=prepared,
        passed=report.passed,
        reasons=list(report.reasons),
        markdown=f"{shown}\n\n[The report with example images]({url})",
        report_url=url,
        mlflow_url=url,
    )


def _figure(store: S3Store, report: QualityReport, version: Snapshot) -> str:
    """For the person who is asked, as Markdown; empty if nobody is, or if no check names an image."""
    if report.passed or (figure := quality_figure(report, version)) is None:
        return ""
    return keep_figure(store, figure, "Images of the delivery with their labels, and why they are shown")


def quarantine_version(validated: ValidatedLine, workflow: WorkflowRun) -> RecordedVersion:
    """The version in use stays; a retry, or another run that prepared the same, finds the entry."""
    prepared = validated.prepared
    store, decider = S3Store(Settings().bucket), Decider(workflow.id, validated.report_url)
    entry = record_version(
        store, prepared.line, "quarantined", prepared.version, prepared.base, decider, validated.reasons
    )
    return RecordedVersion.of_entry(entry)


def record_verdict(validated: ValidatedLine, verdict: Verdict | None, workflow: WorkflowRun) -> RecordedVersion:
    """Release or reject the version. Without an answer, or if a person decided elsewhere meanwhile, nothing changes."""
    store, prepared = S3Store(Settings().bucket), validated.prepared
    log, digest = read_line_log(store, prepared.line), prepared.dataset.digest
    decided = log.of_workflow(workflow.id, digest, "released", "rejected")
    if decided is None and verdict and verdict.by and digest in {entry.dataset.digest for entry in waiting(log)}:
        reason = verdict.reason.strip() or f"answered in Airflow by {verdict.by}"
        decider = Decider(workflow.id, validated.report_url, verdict.by, reason)
        decided = (release if verdict.release else reject)(store, prepared.line, digest, decider)
    return RecordedVersion.of_entry(decided or log.of_version(digest))
