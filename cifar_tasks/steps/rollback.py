"""Rollback: an earlier version becomes the champion again, after its files and what it computes were verified."""

import logging
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cifar_tasks.data.loading import load_split
from cifar_tasks.data.versions import DatasetVersion, load_version
from cifar_tasks.errors import ConfigError, IntegrityError
from cifar_tasks.settings import Settings
from cifar_tasks.steps.payloads import WorkflowRun
from cifar_tasks.steps.promotion_payloads import Promotion, RollbackRequest
from cifar_tasks.storage.promotion_log import Log, Outcome, challenger_after, decide_and_append
from cifar_tasks.storage.s3 import S3Store
from cifar_tasks.tracking import model_registry, runs
from cifar_tasks.tracking.aliases import follow_log, read_registry
from cifar_tasks.tracking.decisions import log_links, run_page
from cifar_tasks.tracking.evaluations import identify_test_set, read_evaluation, read_probabilities
from cifar_tasks.tracking.saved_model import load_model
from cifar_tasks.tracking.version_evidence import tag, verify_version

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

SAMPLE = 256
"""Test images that the version must classify as it did."""
TOLERANCE = 0.02
"""Of a probability: another machine rounds otherwise, and probabilities are stored in float16."""

_log = logging.getLogger(__name__)


def roll_back(request: RollbackRequest, workflow: WorkflowRun) -> Promotion:
    """Make the previous champion, or the version that is asked for, the champion again.

    Raises `IntegrityError` if its files were altered, or if it no longer computes its stored probabilities. Then
    nothing has moved.
    """
    client, store = runs.mlflow_client(), S3Store(Settings().bucket)
    name = request.registered_model
    with runs.tracking_errors():
        log = follow_log(client, store, name)
        if not (entry := log.of_workflow(workflow.id)):
            target = request.version or _previous(log)
            version = model_registry.get_version(client, name, target)
            log_links(client, version)
            verify_version(client, version)
            checked = _check_answers(store, version)

            def outcome(log: Log) -> Outcome:
                return _outcome(client, request, workflow, log, target, checked)

            entry = decide_and_append(store, name, workflow.id, outcome)
        follow_log(client, store, name)
        page = run_page(client, model_registry.get_version(client, name, entry.candidate or 0))
    for reason in entry.reasons:
        _log.info("%s", reason)
    return Promotion.of_entry(entry, page)


def _previous(log: Log) -> int:
    if log.last and (earlier := log.last.earlier_champion):
        return earlier
    raise ConfigError(f"the promotion log of {log.registered_model} names no champion before this one: give a version.")


def _check_answers(store: S3Store, version: "ModelVersion") -> str:
    """What was verified; `IntegrityError` if the model does not compute what its evaluation has stored."""
    # Loads torch.
    from cifar_tasks.evaluation.calibration import to_float16
    from cifar_tasks.training.device import choose_device
    from cifar_tasks.training.logits import predict_logits, resized

    data = load_version(store, tag(version, "cifar.dataset_uri"))
    stored = _stored_probabilities(store, version, data)
    test = load_split(store, data, "test", Settings().home / "cache")
    chosen = np.linspace(0, len(test) - 1, min(SAMPLE, len(test))).astype(int)
    model = load_model(model_registry.saved_model_of(version), choose_device())
    size = int(version.tags.get("cifar.image_size", data.image_size))
    now = to_float16(predict_logits(model, resized(test.take(chosen).images, size)))
    gap = float(np.abs(now.astype(np.float32) - stored[chosen].astype(np.float32)).max())
    if not gap <= TOLERANCE:
        raise IntegrityError(
            f"version {version.version} of {version.name} does not compute its stored probabilities: on {len(chosen)} "
            f"test images they differ by up to {gap:.3f}. It is not promoted; choose another version."
        )
    digest = model_registry.saved_model_of(version).sha256
    return f"verified: its files have the SHA-256 {digest[:12]}…, and it classifies {len(chosen)} test images as it did"


def _stored_probabilities(store: S3Store, version: "ModelVersion", data: DatasetVersion) -> NDArray[np.float16]:
    """(N, classes), as the evaluation has stored them: what the model computes now proves nothing about itself."""
    saved, test_set = model_registry.saved_model_of(version), identify_test_set(store, data)
    try:
        found = read_evaluation(store, test_set.digest, saved.sha256)
        if found:
            return read_probabilities(store, found)
        problem = f"version {version.version} of {version.name} has no stored probabilities."
    except IntegrityError as error:
        problem = str(error)
    raise IntegrityError(
        f"{problem} So nothing tells whether the model still answers as it did. To evaluate it anew, start the DAG "
        f"cifar10_promotion with version {version.version} and mode never; or choose another version."
    )


def _outcome(
    client: "MlflowClient",
    request: RollbackRequest,
    workflow: WorkflowRun,
    log: Log,
    target: int,
    checked: str,
) -> Outcome:
    last, reason = log.last, request.reason.strip()
    champion, previous = (last.champion, last.previous) if last else (None, None)
    if champion == target:
        raise ConfigError(f"version {target} of {request.registered_model} is the champion already: give another one.")
    registry = read_registry(client, request.registered_model)
    instead = f", in place of version {champion}" if champion else ""
    return Outcome(
        action="rollback",
        candidate=target,
        champion=target,
        previous=champion or previous,
        challenger=challenger_after(last, target),
        registry_created=registry.created if registry else None,
        reason=reason,
        who=workflow.by,
        workflow=workflow.id,
        url=workflow.url,
        reasons=(
            f"version {target} is the champion again{instead}",
            checked,
            f"reason given: {reason}",
        ),
    )
