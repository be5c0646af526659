"""What Airflow gains: the page "Models", buttons on the tab *Details* of a task, a webhook of dataset lines.

The tasks push the addresses of their MLflow run, model version, report and comparison as soon as they are known, so
that running and failed tasks show their buttons too. Airflow stores them in XCom under the keys below.
"""

from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlencode

from airflow.api_fastapi.core_api.security import requires_access_dag
from airflow.configuration import conf
from airflow.models.taskinstancekey import TaskInstanceKey
from airflow.plugins_manager import AirflowPlugin
from airflow.serialization.definitions.operatorlink import XComOperatorLink
from line_webhook.receiver import create_receiver
from models_page.routes import create_app

from cifar_tasks.deployment.dag_ids import PROMOTION_DAG, TRAINING_DAG

PREFIX = "models-page"
_VIEW = {"bundle_url": f"{PREFIX}/static/models.js", "icon": f"{PREFIX}/static/models.svg"}


class TaskLink(XComOperatorLink):
    """The address that the task has pushed, else the one of another task that worked on the same model."""

    def get_link(self, operator: Any, *, ti_key: TaskInstanceKey) -> str:
        for key in (ti_key, *_related(ti_key, self.xcom_key)):
            if (url := super().get_link(operator, ti_key=key)) not in ("", "None"):
                return url
        return ""


class ComparisonLink(TaskLink):
    """Without a comparison yet: the page with this run's versions beside the champion."""

    def get_link(self, operator: Any, *, ti_key: TaskInstanceKey) -> str:
        url = super().get_link(operator, ti_key=ti_key)
        if url or ti_key.dag_id != TRAINING_DAG:
            return url
        state = urlencode({"dag_id": ti_key.dag_id, "run_id": ti_key.run_id})
        return f"{conf.get('api', 'base_url').rstrip('/')}/plugin/models?{state}"


def _related(task: TaskInstanceKey, link: str) -> Iterator[TaskInstanceKey]:
    """Tasks of the same DAG run, and of the promotion that it has started, which has its id."""
    report = task._replace(dag_id=TRAINING_DAG, task_id="report", map_index=-1)
    proposal = task._replace(dag_id=PROMOTION_DAG, task_id="propose", map_index=-1)
    if task.dag_id == PROMOTION_DAG:
        yield from (proposal, report)
    elif task.dag_id == TRAINING_DAG:
        if task.task_id.startswith("model."):  # a task group that is mapped over the models
            yield task._replace(task_id="model.register")
            if link == "version_url":  # the other tasks have that of the candidate, which may be of another model
                return
        yield from (report, proposal)


def start_checks(lines: Sequence[str]) -> dict[str, str]:
    from line_webhook import check_runs

    return check_runs.start_checks(lines)


class CifarUi(AirflowPlugin):
    """Loaded by the API server only."""

    name = "cifar_ui"
    global_operator_extra_links = (
        TaskLink(name="MLflow run", xcom_key="mlflow_url"),
        TaskLink(name="Model version", xcom_key="version_url"),
        TaskLink(name="Report", xcom_key="report_url"),
        ComparisonLink(name="Comparison", xcom_key="comparison_url"),
    )
    fastapi_apps = (
        {
            "name": "Models",
            "url_prefix": f"/{PREFIX}",
            "app": create_app(requires_access_dag("GET", param_dag_id=TRAINING_DAG)),
        },
        {"name": "Webhook of dataset lines", "url_prefix": "/dataset-lines", "app": create_receiver(start_checks)},
    )
    react_apps = (
        {**_VIEW, "name": "Models", "destination": "nav", "url_route": "models", "nav_top_level": True},
        {**_VIEW, "name": "Models of this run", "destination": "dag_run", "url_route": "models-of-run"},
    )
