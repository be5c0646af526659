"""Promotion: a proposal from the evidence, its entry in the promotion log, then the aliases, which follow the log."""

import json
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from cifar_tasks.data.loading import load_split
from cifar_tasks.data.versions import DatasetVersion, load_version
from cifar_tasks.errors import IntegrityError
from cifar_tasks.promotion.best_accuracy import Candidate, Unscored, decide
from cifar_tasks.settings import Settings
from cifar_tasks.steps.payloads import Answer, Promotion, PromotionRequest, Proposal, WorkflowRun
from cifar_tasks.storage.promotion_log import Entry, Log, Outcome, decide_and_append
from cifar_tasks.storage.s3 import S3Store
from cifar_tasks.tracking import model_registry, runs
from cifar_tasks.tracking.aliases import follow_log, read_registry
from cifar_tasks.tracking.decisions import note_decision, run_page
from cifar_tasks.tracking.runs import DATASET, MODEL
from cifar_tasks.tracking.saved_model import SavedModel, is_stored

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

_log = logging.getLogger(__name__)


def propose(request: PromotionRequest, workflow: WorkflowRun) -> Proposal:
    """Compare the candidate with the champion; moves nothing but aliases that had not followed the promotion log."""
    client, store = runs.mlflow_client(), S3Store(Settings().bucket)
    with runs.tracking_errors():
        model_registry.get_version(client, request.registered_model, request.version)
        log = follow_log(client, store, request.registered_model)
        proposal = _propose(client, store, request, workflow, log)
    for reason in proposal.reasons:
        _log.info("%s", reason)
    return proposal


def record(proposal: Proposal, answer: Answer | None) -> Promotion:
    """Enter the decision into the promotion log; then the aliases follow.

    If the champion is another one meanwhile, the candidate is compared with that one. A retry finds its entry.
    """
    client, store = runs.mlflow_client(), S3Store(Settings().bucket)
    name = proposal.request.registered_model
    with runs.tracking_errors():
        follow_log(client, store, name)
        entry = decide_and_append(
            store, name, proposal.workflow.id, lambda log: _outcome(client, store, proposal, answer, log)
        )
        follow_log(client, store, name)
        note_decision(client, entry)
        promotion = _promotion(entry, proposal.mlflow_url)
    _log.info("entry %d of the promotion log of %s: %s", entry.number, name, entry.action)
    for reason in entry.reasons:
        _log.info("%s", reason)
    return promotion


def _promotion(entry: Entry, mlflow_url: str) -> Promotion:
    fields = {field: getattr(entry, field) for field in Promotion.model_fields.keys() & Entry.model_fields.keys()}
    return Promotion(**{**fields, "reasons": list(entry.reasons)}, mlflow_url=mlflow_url)


def _outcome(client: "MlflowClient", store: S3Store, proposal: Proposal, answer: Answer | None, log: Log) -> Outcome:
    """What the log says next, on the log as it is now."""
    request, last = proposal.request, log.last
    champion, previous, challenger = (last.champion, last.previous, last.challenger) if last else (None, None, None)
    changed = champion != proposal.champion
    if changed and not proposal.needs_approval:
        proposal = _propose(client, store, request, proposal.workflow, log)
        changed = False
    said = _said(proposal, answer, changed, champion)
    promote = proposal.promote and not changed and (not proposal.needs_approval or bool(answer and answer.approved))
    candidate = request.version
    if promote:
        # An alias is never deleted: the champion that it replaces takes the place of the version that lost.
        challenger = champion if challenger == candidate else challenger
        champion, previous = candidate, previous if champion is None else champion
    elif champion != candidate and (proposal.challenger or proposal.promote):
        challenger = candidate
    registry = read_registry(client, request.registered_model)
    return Outcome(
        action="promote" if promote else "reject" if proposal.promote and not changed else "keep",
        candidate=candidate,
        champion=champion,
        previous=previous,
        challenger=challenger,
        registry_created=registry.created if registry else None,
        mode=request.mode,
        reason=request.reason,
        who=answer.by if answer else None,
        workflow=proposal.workflow.id,
        url=proposal.comparison_url or proposal.workflow.url,
        decision=proposal.decision,
        reasons=(*proposal.reasons, *said),
    )


def _said(proposal: Proposal, answer: Answer | None, changed: bool, champion: int | None) -> list[str]:
    """What a person said, and what became of it."""
    if not proposal.needs_approval:
        return []
    if answer is None:
        return ["nobody was asked: to be asked, start the DAG cifar10_promotion with this version"]
    at = f" at {answer.at:%Y-%m-%d %H:%M} UTC" if answer.at else ""
    texts = [f"{answer.by} {'approved' if answer.approved else 'rejected'} it{at}"]
    if answer.by is None:
        texts = [f"nobody answered in time{at}"] if not answer.approved else [f"it was approved{at}"]
    if changed and answer.approved:
        now = f"version {champion}" if champion else "none"
        texts.append(f"the champion is {now} since then: start the promotion again to compare with it")
    return texts


def _propose(
    client: "MlflowClient", store: S3Store, request: PromotionRequest, workflow: WorkflowRun, log: Log
) -> Proposal:
    version = model_registry.get_version(client, request.registered_model, request.version)
    in_place = log.last.champion if log.last else None
    data = load_version(store, version.tags["cifar.dataset_uri"])
    champion = (
        _champion(client, model_registry.get_version(client, request.registered_model, in_place), data)
        if in_place
        else None
    )
    decision = decide([_candidate(version)], champion)
    promote = decision.champion == request.version != in_place
    return Proposal(
        request=request,
        workflow=workflow,
        champion=in_place,
        promote=promote and request.mode != "never",
        needs_approval=promote and request.mode == "approve",
        challenger=decision.challenger is not None,
        reasons=list(decision.reasons),
        decision=json.loads(json.dumps(decision.as_dict())),
        markdown="\n".join(f"- {reason}" for reason in decision.reasons),
        comparison_url=None,
        mlflow_url=run_page(client, version),
    )


def _candidate(version: "ModelVersion") -> Candidate:
    """Raises `IntegrityError` for a version that was registered by hand."""
    model_registry.saved_model_of(version)
    tags = version.tags
    try:
        return Candidate(
            version=int(version.version),
            model=tags[MODEL],
            test_accuracy=float(tags["cifar.test_accuracy"]),
            dataset=tags[DATASET],
            classes=model_registry.class_names(version),
            parameters=int(tags["cifar.parameters"]),
            placeholder=tags.get("cifar.placeholder") == "true",
        )
    except (KeyError, ValueError) as error:
        raise IntegrityError(
            f"version {version.version} of {version.name} has no usable tag {error}: somebody has changed its tags."
        ) from error


def _champion(client: "MlflowClient", in_place: "ModelVersion", data: DatasetVersion) -> Candidate | Unscored:
    """The champion as it scores on this run's test images: scored again when its own were others."""
    number = int(in_place.version)
    try:
        champion = _candidate(in_place)
    except IntegrityError as error:
        return Unscored(number, str(error), gone=False)
    saved = model_registry.saved_model_of(in_place)
    if not is_stored(client, saved):
        return Unscored(number, f"its stored model {saved.uri} was deleted.", gone=True)
    if champion.dataset == data.digest or champion.classes != data.classes:
        return champion
    size = int(in_place.tags.get("cifar.image_size", 32))  # models from before sizes took 32 pixels
    try:
        accuracy = _test_accuracy(saved, size, data)
    except IntegrityError as error:
        return Unscored(number, str(error), gone=True)
    _log.info("champion version %d scores %.2f %% on these test images", champion.version, 100 * accuracy)
    return replace(champion, test_accuracy=accuracy, dataset=data.digest)


def _test_accuracy(saved: SavedModel, size: int, version: DatasetVersion) -> float:
    """Of a model that was saved for another dataset version, on the test images of this one in the model's size."""
    # Loads torch, and is seldom needed.
    from cifar_tasks.tracking.saved_model import load_model
    from cifar_tasks.training.device import choose_device
    from cifar_tasks.training.logits import predict_logits, resized

    settings = Settings()
    test = load_split(S3Store(settings.bucket), version, "test", settings.home / "cache")
    images = resized(test.images, size)
    predicted = predict_logits(load_model(saved, choose_device()), images).argmax(axis=1)
    return float((predicted == test.labels).mean())
