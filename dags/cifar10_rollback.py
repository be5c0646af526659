"""Rollback: an earlier version is the champion again, once it is verified."""

from typing import Any

from airflow.sdk import dag, task

from cifar_tasks.deployment.dag_ids import ROLLBACK_DAG
from cifar_tasks.steps.promotion_payloads import RollbackRequest
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

ABOUT = """\
Makes the previous champion, or the version of the form, the champion again. Before anything moves, the files of that
version are verified by their digests, and its answers on a sample of the test images by its stored probabilities. The
promotion log keeps the rollback with the reason.
"""


@dag(
    dag_id=ROLLBACK_DAG,
    dag_display_name="Model rollback",
    description="Verify the previous champion, or another version, and make it the champion again.",
    doc_md=ABOUT,
    schedule=None,
    params=form_params(RollbackRequest.form_fields(), {"registered_model": SETTINGS.registered_model}),
    default_args=RETRIES,
    tags=["promotion", "image-classification"],
)
def cifar10_rollback():
    @task(
        **(PROMOTER or GPU),
        doc_md="Verify the version, write the rollback to the promotion log; then the aliases follow it.",
    )
    def roll_back(params: dict[str, Any]) -> dict[str, Any]:
        done = run_task_step(
            "rollback:roll_back", request=form_request(RollbackRequest, params), workflow=workflow_run()
        )
        show_in_note(done["reasons"])
        return done

    roll_back()


cifar10_rollback()
