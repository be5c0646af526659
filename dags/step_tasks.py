"""What the DAG files share: forms made from payloads, tasks that run a step, addresses, retries.

Airflow does not parse this file as a DAG file: `.airflowignore`.
"""

import logging
import re
from contextlib import suppress
from datetime import timedelta
from typing import Any
from urllib.parse import quote

from airflow.sdk import Asset, Param, get_current_context
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from cifar_tasks.config import AS_RECIPE
from cifar_tasks.settings import Settings
from cifar_tasks.steps.form_request import FormRequest

SETTINGS = Settings()
GPU = {"pool": "gpu", "queue": "gpu"}
"""For tasks that need torch: the pool has one slot per training that may run at the same time, and workers of the other
queue have no torch."""
PROMOTER = {"queue": SETTINGS.promotion_queue} if SETTINGS.promotion_queue else {}
"""For tasks that write the promotion log and move aliases, where trainings have no right to."""
RETRIES = {
    "retries": 2,
    "retry_delay": timedelta(seconds=10),
    "retry_exponential_backoff": True,
    "max_retry_delay": timedelta(minutes=10),
    "execution_timeout": timedelta(hours=1),
}
"""Of every task, where it has none of its own."""
SKIPPED = "skipped"
"""XCom of a task that was skipped because there is nothing to train: the reason."""
LINKS = {
    "MLflow run: ": "mlflow_url",
    "Model version: ": "version_url",
    "Comparison: ": "comparison_url",
    "Report: ": "report_url",
}
"""A line of a step that begins with one of these tells an address; the XCom key where its button finds it."""

WEB_ADDRESS = re.compile(r"https?://\S+")

MAX_NOTE_LINE = 300
"""Characters of a reason in the note of a DAG run, which Airflow limits: a person may have written a page."""

_log = logging.getLogger(__name__)


def line_asset(name: str) -> Asset:
    """The asset of a dataset line: an event for each version that comes into use."""
    return Asset(f"dataset_line_{name}", f"cifar://lines/{name}")


def form_params(fields: dict[str, dict[str, Any]], values: dict[str, Any]) -> dict[str, Param]:
    """The trigger form: fields as JSON schema, and defaults in place of their own. The user must give what has none."""
    defaults = {name: schema["default"] for name, schema in fields.items() if "default" in schema} | values
    return {
        name: form_field(schema, defaults[name]) if name in defaults else Param(**schema)
        for name, schema in fields.items()
    }


def form_field(schema: dict[str, Any], value: Any) -> Param:
    """A field of a pydantic model as Airflow's form shows it. What may be none, or no text, may be left empty.

    A choice cannot be left empty in the form, so that it offers the word `recipe` for none.
    """
    value = None if value == "" else value
    value_schema = schema.get("anyOf", [{}])[0]  # what is optional is any of this and null
    schema = {name: part for name, part in schema.items() if name not in ("default", "anyOf")} | value_schema
    optional = value is None
    if optional and (schema["type"] == "boolean" or "enum" in schema):
        choices = [AS_RECIPE, *schema.get("enum", ["on", "off"])]
        return Param(AS_RECIPE, **{**schema, "type": "string", "enum": choices})
    return Param(value, **{**schema, "type": ["null", schema["type"]] if optional else schema["type"]})


def form_request(kind: type[FormRequest], params: dict[str, Any]) -> dict[str, Any]:
    """What the form asks for. A key that it does not have fails the task at once: a run by API may have any."""
    from cifar_tasks.errors import ConfigError

    try:
        return kind.from_form(params).model_dump(mode="json")
    except ConfigError as error:
        raise AirflowFailException(str(error)) from None


def run_task_step(step: str, trainings: int | None = None, **arguments: Any) -> Any:
    """Run a step (`module:function` of `cifar_tasks.steps`) in its own process; arguments and result are JSON.

    Its threads follow from how many `trainings` this run has; none: as many as there are slots.

    An error that is not retryable fails the task without a retry. Nothing to train, or a model that the run does
    without: the task is skipped, and with it those after it.
    """
    from cifar_tasks.errors import CifarError, ModelSkipped, NothingToTrain, Stopped
    from cifar_tasks.steps.process import run_step

    def on_line(line: str) -> None:
        _log.info("%s", line)
        for title, key in LINKS.items():
            # Names of data may begin a line too.
            if line.startswith(title) and WEB_ADDRESS.fullmatch(line.removeprefix(title)):
                show_link(key, line.removeprefix(title))

    for key in LINKS.values():
        if url := find_url(arguments, key):
            show_link(key, url)
    try:
        return run_step(f"cifar_tasks.steps.{step}", on_line, trainings=trainings, **arguments)
    except Stopped as stop:
        with suppress(Exception):  # Airflow may have deleted the DAG run; the next one finds its MLflow runs
            end_mlflow_runs_of_marked_run()
        raise AirflowException(str(stop)) from None
    except (NothingToTrain, ModelSkipped) as nothing:
        show_in_note([str(nothing)])
        get_current_context()["ti"].xcom_push(SKIPPED, str(nothing))
        raise AirflowSkipException(str(nothing)) from None
    except CifarError as error:
        message = " ".join(str(error).split())
        _log.error("%s", message)  # Airflow prints a traceback of its own above the message of an exception
        raise (AirflowException if error.retryable else AirflowFailException)(message) from None


def find_url(arguments: Any, key: str) -> str | None:
    """The address of what a step continues, such as its MLflow run: the outermost of this key in its arguments."""
    inner = arguments.values() if isinstance(arguments, dict) else arguments if isinstance(arguments, list) else ()
    own = arguments.get(key) if isinstance(arguments, dict) else None
    return own or next((url for value in inner if (url := find_url(value, key))), None)


def show_link(key: str, url: str) -> None:
    """A button of the task, also while it runs and after a failure."""
    get_current_context()["ti"].xcom_push(key, url)


def as_list(values: Any) -> list[Any]:
    """Results of mapped tasks: Airflow passes a sequence, or the value itself if there is one task."""
    return [values] if isinstance(values, dict) else list(values or ())


def show_name(name: str) -> None:
    """The name of a mapped task in the UI, instead of its number."""
    get_current_context()["name"] = name  # type: ignore[typeddict-unknown-key]


def workflow_run() -> dict[str, Any]:
    """Identifies this DAG run in all steps, also in retries."""
    run = get_current_context()["dag_run"]
    page = f"{SETTINGS.airflow_url}/dags/{run.dag_id}/runs/{quote(run.run_id)}" if SETTINGS.airflow_url else None
    return {"id": f"{run.dag_id}/{run.run_id}", "name": run.run_id, "url": page, "by": run.triggering_user_name}


def show_in_note(reasons: list[str]) -> None:
    """Add the reasons to the note of the DAG run. Only Airflow's public API writes notes, and it needs a log-in."""
    from cifar_tasks.deployment.airflow_api import set_note
    from cifar_tasks.evaluation.names import markdown, shortened

    run = get_current_context()["dag_run"]
    lines = [f"- {markdown(shortened(reason, MAX_NOTE_LINE))}" for reason in reasons]
    try:
        set_note(SETTINGS, run.dag_id, run.run_id, lines)
    except Exception as error:  # what was decided is decided
        _log.warning("the note of this DAG run does not show the reasons: %s", error)


def end_workflow(run: Any, state: str) -> dict[str, Any]:
    """Arguments of the step that ends the MLflow runs of a DAG run in this state."""
    workflow = {"id": f"{run.dag_id}/{run.run_id}", "name": run.run_id}
    return {"workflow": workflow, "status": "FINISHED" if state == "success" else "FAILED"}


def end_mlflow_runs_of_marked_run() -> None:
    """The same for a DAG run that a person marks in the UI: Airflow stops its tasks and calls no callback.

    Not in this process, which Airflow kills five seconds after it was told to stop.
    """
    from cifar_tasks.steps.process import start_step

    context = get_current_context()
    run = context["dag_run"]
    state = context["ti"].get_dagrun_state(run.dag_id, run.run_id)
    if state in ("success", "failed"):
        start_step("cifar_tasks.steps.report:end_workflow", **end_workflow(run, state))
