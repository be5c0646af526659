"""Promotion: compare a model version with the champion, ask a person if that is wanted, record the decision."""

from typing import Any

from airflow.sdk import TriggerRule, dag, task

from approval import answer_fields, approval
from cifar_tasks.deployment.dag_ids import PROMOTION_DAG
from cifar_tasks.steps.promotion_payloads import PromotionRequest
from step_tasks import (
    GPU,
    PROMOTER,
    RETRIES,
    SETTINGS,
    form_params,
    form_request,
    run_task_step,
    show_in_note,
    workflow_run,
)

APPROVE = "Approve"
ABOUT = """\
Compares a version of a registered model with its champion on the same test images, and decides by the limits of the
form. The promotion log keeps each decision with its evidence; the aliases `champion`, `previous` and `challenger` in
MLflow follow the log. No other DAG moves them, except *Model rollback*.

**Start:** each training starts one for its best version. To decide about any other version, click ▶ Trigger.

**Approval:** in the mode `approve` the task *approve* waits for a person. Its tab *Required Actions* shows the
comparison, and a field for the reason; a rejection needs one. No answer in time is a no.

**Results:** the note of the run has the reasons, the tab *Details* of a task a button to the comparison.
"""


@dag(
    dag_id=PROMOTION_DAG,
    dag_display_name="Model promotion",
    description="Compare a version with the champion, ask a person if that is wanted, record the decision.",
    doc_md=ABOUT,
    schedule=None,
    max_active_runs=100,  # a run that waits for a person counts, and must not keep the next one waiting
    params=form_params(
        PromotionRequest.form_fields(),
        {
            "registered_model": SETTINGS.registered_model,
            "mode": SETTINGS.promotion,
            **SETTINGS.promotion_limits.model_dump(),
        },
    ),
    default_args=RETRIES,
    tags=["promotion", "image-classification"],
)
def cifar10_promotion():
    @task(
        **(PROMOTER or GPU),
        doc_md="Evaluate the champion on the candidate's test images if that was not done; compare both and decide.",
    )
    def propose(params: dict[str, Any]) -> dict[str, Any]:
        return run_task_step("promote:propose", request=form_request(PromotionRequest, params), workflow=workflow_run())

    @task.branch(doc_md="Continue with the task approve if a person has to decide, else skip it.")
    def branch_on_approval(proposal: dict[str, Any]) -> str:
        return "approve" if proposal["needs_approval"] else "record"

    @task(
        **PROMOTER,
        trigger_rule=TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS,
        doc_md="Write the decision to the promotion log; then the aliases in MLflow follow it.",
    )
    def record(proposal: dict[str, Any], response: Any) -> dict[str, Any]:
        recorded = run_task_step("promote:record", proposal=proposal, answer=answer(response))
        show_in_note(recorded["reasons"])
        return recorded

    proposal = propose()
    approve = approval(
        APPROVE,
        task_id="approve",
        subject="Promote version {{ params.version }} of {{ params.registered_model }}?",
        body="{{ ti.xcom_pull('propose')['markdown'] }}",
        doc_md="Wait for a person, who sees the comparison on the tab *Required Actions*. No answer in time is a no.",
    )
    branch_on_approval(proposal) >> [approve, record(proposal, approve.output)]


def answer(response: Any) -> dict[str, Any] | None:
    """The answer of a person to the task `approve`; nobody has answered if `by` is none. None if none was asked."""
    if response is None:
        return None
    return {"approved": response["chosen_options"] == [APPROVE], **answer_fields(response)}


cifar10_promotion()
