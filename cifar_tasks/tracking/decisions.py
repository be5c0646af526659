"""Where MLflow shows a decision of the promotion log: the version that it is about, and the run that trained it."""

import json
import logging
from typing import TYPE_CHECKING, Any

from cifar_tasks.evaluation.names import markdown, shortened
from cifar_tasks.storage.promotion_log import ROOT, Entry
from cifar_tasks.storage.s3 import S3Store, sha256_hex
from cifar_tasks.tracking import runs
from cifar_tasks.tracking.airflow_links import page_of_version
from cifar_tasks.tracking.model_registry import set_tag

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

DECISION = "cifar.decision"
"""Tag of a version: the last decision about it, as JSON."""
SECTION = "\n\n### Promotion\n\n"
"""Begins the part of a description that the next decision replaces."""
MAX_DESCRIPTION = 5_000
"""Characters that MLflow keeps of a version's description."""
MAX_REASON = 1_000

_log = logging.getLogger(__name__)


def note_decision(client: "MlflowClient", entry: Entry) -> None:
    """In the tags and the description of the version, and with the parent run of its training."""
    name, version = entry.registered_model, client.get_model_version(entry.registered_model, str(entry.candidate))
    short = {field: getattr(entry, field) for field in ("number", "action", "mode", "reason", "who", "reasons")}
    text = describe_decision(entry)
    set_tag(client, name, DECISION, json.dumps(short), version.version)
    client.update_model_version(name, version.version, with_section(version.description or "", text, MAX_DESCRIPTION))
    parent = parent_run(client, version)
    if parent is not None:
        client.log_dict(parent.info.run_id, entry.model_dump(mode="json"), "promotion.json")
        note = with_section(parent.data.tags.get(runs.NOTE, ""), text, MAX_DESCRIPTION)
        runs.log_tags(client, parent.info.run_id, {runs.NOTE: note})


def describe_decision(entry: Entry) -> str:
    """Markdown: what was decided, and why."""
    head = f"Entry {entry.number} of the promotion log, {entry.time:%Y-%m-%d %H:%M} UTC: **{entry.action}**"
    by = f" by {markdown(entry.who)}" if entry.who else ""
    given = f": {markdown(shortened(entry.reason, MAX_REASON))}" if entry.reason else ""
    lines = [f"- {markdown(shortened(reason, MAX_REASON))}" for reason in entry.reasons]
    return "\n".join([f"{head}{by}{given}", "", *lines])


def with_section(description: str, text: str, length: int) -> str:
    """The description with this text at its end, in place of that of an earlier decision; at most `length` long."""
    before = description.partition(SECTION)[0]
    return (before[: max(0, length - len(SECTION) - len(text))] + SECTION + text)[:length]


def keeping_decision(text: str, before: str) -> str:
    """The text in place of an earlier description, whose part about the decision stays at the end."""
    _, found, decision = before.partition(SECTION)
    return with_section(text, decision, MAX_DESCRIPTION) if found else text


def keep_comparison(
    client: "MlflowClient", store: S3Store, version: "ModelVersion", workflow: str, page: str
) -> str | None:
    """Keep the page of a workflow run in S3 and in MLflow, with the run that trained the version.

    Returns its address in MLflow; none if that run was deleted.
    """
    name = f"comparisons/{sha256_hex(workflow.encode())[:16]}.html"
    store.put(f"{ROOT}/{version.name}/{name}", page.encode())
    if (run := _run(client, version.run_id)) is None:
        return None
    client.log_text(run.info.run_id, page, name)
    return runs.run_url(run.info.run_id, run.info.experiment_id, name)


def run_page(client: "MlflowClient", version: "ModelVersion") -> str:
    """The page of the run that trained a version; of the version itself if that run was deleted."""
    if (run := _run(client, version.run_id)) is not None:
        return runs.run_url(run.info.run_id, run.info.experiment_id)
    return runs.version_url(version.name, int(version.version))


def log_links(client: "MlflowClient", version: "ModelVersion") -> None:
    """The addresses of a version that is decided about, for the buttons of the task."""
    number = int(version.version)
    _log.info("MLflow run: %s", run_page(client, version))
    _log.info("Model version: %s", runs.version_url(version.name, number))
    if page := page_of_version(version.name, number):
        _log.info("Comparison: %s", page)


def parent_run(client: "MlflowClient", version: "ModelVersion") -> "Run | None":
    """The MLflow run of the workflow run that trained a version; none if it was deleted."""
    run = _run(client, version.run_id)
    return run and _run(client, run.data.tags.get("mlflow.parentRunId"))


def _run(client: "MlflowClient", run_id: Any) -> "Run | None":
    return client.get_run(run_id) if run_id and runs.exists(client, run_id) else None
