"""Promotion: a proposal from the evidence, its entry in the promotion log, then the aliases, which follow the log."""

import logging
from typing import TYPE_CHECKING

from cifar_tasks.promotion.comparison_figure import comparison_figure
from cifar_tasks.promotion.comparison_tables import comparison_markdown
from cifar_tasks.promotion.decision import decide
from cifar_tasks.promotion.evidence import Decision
from cifar_tasks.promotion.page import comparison_page
from cifar_tasks.settings import Settings
from cifar_tasks.steps.payloads import WorkflowRun
from cifar_tasks.steps.promotion_payloads import Answer, Promotion, PromotionRequest, Proposal
from cifar_tasks.storage.promotion_log import Log, Outcome, challenger_after, decide_and_append, uses_of
from cifar_tasks.storage.s3 import S3Store
from cifar_tasks.tracking import model_registry, runs
from cifar_tasks.tracking.aliases import follow_log, read_registry
from cifar_tasks.tracking.approval_figures import keep_figure
from cifar_tasks.tracking.decisions import keep_comparison, log_links, run_page
from cifar_tasks.tracking.version_evidence import Evidence, gather_evidence, verify_version

if TYPE_CHECKING:
    from mlflow import MlflowClient

START_AGAIN = "to decide again, start the DAG cifar10_promotion with this version"

_log = logging.getLogger(__name__)


def propose(request: PromotionRequest, workflow: WorkflowRun) -> Proposal:
    """Compare the candidate with the champion; moves nothing but aliases that had not followed the promotion log."""
    client, store = runs.mlflow_client(), S3Store(Settings().bucket)
    with runs.tracking_errors():
        version = model_registry.get_version(client, request.registered_model, request.version)
        log_links(client, version)
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
        promotion = Promotion.of_entry(entry, proposal.mlflow_url)
    _log.info("entry %d of the promotion log of %s: %s", entry.number, name, entry.action)
    for reason in entry.reasons:
        _log.info("%s", reason)
    return promotion


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
        verify_version(client, model_registry.get_version(client, request.registered_model, candidate))
        challenger = challenger_after(last, candidate)
        champion, previous = candidate, previous if champion is None else champion
    elif champion != candidate and (proposal.challenger or proposal.promote):
        challenger = candidate
    registry = read_registry(client, request.registered_model)
    return Outcome(
        action="promote" if promote else "reject" if proposal.promote and not changed and answer else "keep",
        candidate=candidate,
        champion=champion,
        previous=previous,
        challenger=challenger,
        registry_created=registry.created if registry else None,
        mode=request.mode,
        reason=request.reason,
        who=answer.by if answer else proposal.workflow.by if request.mode == "force" else None,
        answer_reason=" ".join(answer.reason.split()) if answer else "",
        answered=answer.at if answer else None,
        workflow=proposal.workflow.id,
        url=proposal.comparison_url or proposal.workflow.url,
        test_set=proposal.test_set,
        uses=uses_of(store, proposal.test_set) + 1,  # others may have decided while a person was asked
        decision=proposal.decision,
        reasons=(*proposal.reasons, *said),
    )


def _figure(store: S3Store, decision: Decision, evidence: Evidence) -> str:
    """For the person who is asked, as Markdown; empty if nobody is."""
    if not decision.needs_approval:
        return ""
    description = f"Accuracy of the versions with intervals, and recall of each class: {decision.reasons[0]}"
    return keep_figure(store, comparison_figure(decision, *evidence.evaluations), description)


def _said(proposal: Proposal, answer: Answer | None, changed: bool, champion: int | None) -> list[str]:
    """What a person said, and what became of it."""
    if not proposal.needs_approval:
        return []
    if answer is None:
        return [f"nobody was asked; {START_AGAIN}"]
    at = f" at {answer.at:%Y-%m-%d %H:%M} UTC" if answer.at else ""
    texts = [f"{answer.by} {'approved' if answer.approved else 'rejected'} it{at}"]
    if answer.by is None:
        texts = [f"nobody answered in time{at}"] if not answer.approved else [f"it was approved{at}"]
    if reason := " ".join(answer.reason.split()):
        texts[0] += f": {reason}"
    if changed and answer.approved:
        now = f"version {champion}" if champion else "none"
        texts.append(f"the champion is {now} since then; {START_AGAIN}")
    return texts


def _propose(
    client: "MlflowClient", store: S3Store, request: PromotionRequest, workflow: WorkflowRun, log: Log
) -> Proposal:
    name, champion = request.registered_model, log.last.champion if log.last else None
    evidence = gather_evidence(client, store, name, request.version, champion, request.limits.confidence)
    decision = decide(
        evidence.candidate,
        evidence.champion,
        evidence.comparison,
        request.limits,
        request.mode,
        request.reason,
        uses_of(store, evidence.candidate.test_set),
    )
    version = model_registry.get_version(client, name, request.version)
    links = [("Candidate", runs.version_url(name, request.version))]
    links += [("Champion", runs.version_url(name, champion))] if champion else []
    title = f"Promotion of version {request.version} of {name}"
    needs_approval, reasons = decision.needs_approval, list(decision.reasons)
    if earlier := log.of_workflow(workflow.id):
        # The run was cleared: its decision and the page stay, and nobody is asked for what would not count.
        has_page = earlier.candidate == request.version and earlier.url != workflow.url
        url, figure, needs_approval = earlier.url if has_page else None, "", False
        reasons.insert(0, f"entry {earlier.number} of the promotion log has the decision of this run; {START_AGAIN}")
    else:
        page = comparison_page(decision, *evidence.evaluations, title=title, links=links)
        url = keep_comparison(client, store, version, workflow.id, page)
        figure = _figure(store, decision, evidence)
    if url:
        _log.info("Comparison: %s", url)
    shown = comparison_markdown(decision, *evidence.evaluations, figure=figure)
    return Proposal(
        request=request,
        workflow=workflow,
        champion=champion,
        promote=decision.promote,
        needs_approval=needs_approval,
        challenger=decision.challenger,
        reasons=reasons,
        test_set=evidence.candidate.test_set,
        decision={
            **decision.model_dump(mode="json"),
            # With their digests, so that the comparison can be computed again from what it was made of.
            "evaluated": [
                {"labels": found.labels.as_dict(), "probabilities": found.probabilities.as_dict()}
                for found in evidence.evaluations
                if found
            ],
        },
        markdown=f"{shown}\n\n[The whole comparison]({url})" if url else shown,
        comparison_url=url,
        mlflow_url=run_page(client, version),
    )
