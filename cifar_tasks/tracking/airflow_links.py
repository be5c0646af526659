"""Links from MLflow to Airflow: each run and each version names its DAG run, and itself on the page "Models"."""

from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from cifar_tasks.evaluation.names import markdown
from cifar_tasks.settings import Settings
from cifar_tasks.tracking import runs

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

DAG_RUN, MODELS_PAGE = "airflow.dag_run_url", "airflow.models_page_url"
"""Tags of runs and versions."""
IN_ADDRESSES = "%/:?#[]@!$&'*+,;="
"""What stays in an address; a space or a parenthesis would end the link."""


def models_page(registered_model: str, **state: str | int) -> str | None:
    """Address of the page in this state (`plugins/models_page/page_state.py`); none without Airflow."""
    airflow = Settings().airflow_url
    return f"{airflow}/plugin/models?{urlencode({'registered_model': registered_model, **state})}" if airflow else None


def page_of_workflow(workflow: str, registered_model: str) -> str | None:
    """The page with the versions of a workflow run, beside the champion."""
    dag_id, _, run_id = workflow.partition("/")
    return models_page(registered_model, dag_id=dag_id, run_id=run_id)


def page_of_version(registered_model: str, version: int) -> str | None:
    """The page with a version and the champion side by side."""
    return models_page(registered_model, view="compare", a=version)


def links_of_workflow(workflow: str, url: str | None, registered_model: str) -> dict[str, str | None]:
    """Titles and addresses; `url` is the page of its DAG run."""
    return {"Airflow run": url, "Models of this run": page_of_workflow(workflow, registered_model)}


def markdown_links(urls: Mapping[str, str | None]) -> str:
    """Of those that have an address. One that is no web address stands as text: a browser cannot open `s3://`."""
    return " · ".join(_link(title, url) for title, url in urls.items() if url)


def _link(title: str, url: str) -> str:
    if url.startswith(("http://", "https://")):
        return f"[{title}]({quote(url, safe=IN_ADDRESSES)})"
    return f"{title}: {markdown(url)}"


def link_run(client: "MlflowClient", run: "Run", workflow: str, url: str | None, registered_model: str) -> None:
    """Tags of an MLflow run, and its description if it has none yet."""
    note = run.data.tags.get(runs.NOTE) or markdown_links(links_of_workflow(workflow, url, registered_model))
    tags = {DAG_RUN: url, MODELS_PAGE: page_of_workflow(workflow, registered_model), runs.NOTE: note or None}
    runs.log_tags(client, run.info.run_id, tags)
