"""A task that waits for a person: two buttons and a field for the reason. A rejection needs a reason.

Not Airflow's `ApprovalOperator`: it skips the next task after a no, which the logs of this product keep as well.
"""

from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk import Context, Param

from step_tasks import SETTINGS, show_in_note

REJECT = "Reject"
REASON = "answer_reason"
"""Field for the reason. Not `reason`: Airflow would take the answer's from the form of the run."""


class Approval(HITLOperator):
    """Asks again after a rejection without a reason."""

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        response = super().execute_complete(context, event)
        given = answer_fields(response)
        if given["by"] and response["chosen_options"] == [REJECT] and not given["reason"]:
            show_in_note([f"{given['by']} rejected it without a reason: the task {self.task_id} asks again"])
            self.execute(context)  # Airflow drops the answer, and the task waits again
        return response


def approval(yes: str, **arguments: Any) -> Approval:
    """The task that asks whether to do what `subject` says; `yes` is the text of one button. No answer is a no."""
    return Approval(
        options=[yes, REJECT],
        defaults=REJECT,
        params={REASON: Param("", type=["null", "string"], maxLength=2_000, title="Reason (needed to reject)")},
        response_timeout=timedelta(hours=SETTINGS.approval_hours),
        **arguments,
    )


def answer_fields(response: Any) -> dict[str, Any]:
    """Who answered when, and why; `by` is none if nobody did."""
    person, given = response["responded_by_user"], response.get("params_input") or {}
    return {
        "by": person and person["name"],
        "at": response["responded_at"].isoformat(),
        "reason": (given.get(REASON) or "").strip(),
    }
