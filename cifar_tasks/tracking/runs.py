"""MLflow runs: one parent per workflow run, one child per model; found again, never made twice."""

import json
import logging
import math
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from cifar_tasks.data.versions import DatasetVersion
from cifar_tasks.errors import ConfigError, LeaseLost, Stopped, TrackingError, TrackingRefused
from cifar_tasks.settings import Settings
from cifar_tasks.storage.hosts import without_login
from cifar_tasks.tracking.server import check_address, tracking_error

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Run

_UI = "workflowType=machine_learning"
"""Opens MLflow's pages for trained models; the others are for language models."""

WORKFLOW, MODEL, TRAINING, DATASET = "cifar.workflow", "cifar.model", "cifar.training", "cifar.dataset"
"""Tags by which runs are found again: workflow run, model, training digest, dataset digest."""
START_FROM, INITIAL_WEIGHTS = "cifar.start_from", "cifar.initial_weights"
"""Tags of a training and of its version: what was asked for (`recipe` or `champion`), and what it started from."""
PROFILE = "cifar.profile"
"""Tag of a version: the profile that it was trained with."""
STORE = "cifar.store"
"""Tag of a parent run: the id of the object storage in which its data and leases lie (`endings.store_id`). Several
deployments may share an MLflow server."""
REQUEST = "cifar.request"
"""Tag of a parent run: what was asked for, as JSON."""
REPORT_PAGE = "report.html"
"""Artifact of a parent run."""
NOTE = "mlflow.note.content"
"""Tag with the description of a run, in Markdown."""
STUDY, TRIAL = "cifar.study", "cifar.trial"
"""The same of studies and trials: the study's name, the trial's number."""
SEARCHED_IN = "cifar.searched_in"
"""Tag of studies and trials: the workflow run that searches. Not `WORKFLOW`, by which its trainings are found."""

_log = logging.getLogger(__name__)


def mlflow_client(patience: float | None = None) -> "MlflowClient":
    """A client of the server named by `MLFLOW_TRACKING_URI`; there is no default server.

    A name that no name server knows is looked up for `patience` seconds; none: as long as a container restarts.
    """
    from mlflow import MlflowClient

    address = os.environ.get("MLFLOW_TRACKING_URI")
    if not address:
        raise ConfigError("there is no MLflow server: start the stack (`cifar up`) or set MLFLOW_TRACKING_URI.")
    check_address(address, patience)
    # A model that somebody swapped for a pickled one is refused instead of run.
    os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"  # no bars in a log
    # Files come through the server: from S3 itself MLflow retries each of them for up to ten minutes.
    os.environ["MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD"] = "false"
    return MlflowClient()


@contextmanager
def tracking_errors() -> Iterator[None]:
    """Turns what MLflow raises into what this product's callers expect."""
    from mlflow.exceptions import MlflowException
    from requests import RequestException

    try:
        yield
    except (MlflowException, RequestException) as error:  # artifacts raise what requests raises
        raise tracking_error(error) from error


def experiment_id(client: "MlflowClient", name: str) -> str:
    """The experiment's id; made on first use, also when two processes try at once; restored if somebody deleted it."""
    from mlflow.exceptions import MlflowException

    if (found := client.get_experiment_by_name(name)) is None:
        try:
            # Without a kind the UI opens on its pages for language models.
            return str(client.create_experiment(name, tags={"mlflow.experimentKind": "custom_model_development"}))
        except MlflowException:
            if (found := client.get_experiment_by_name(name)) is None:
                raise
    _restore_experiment(client, found)
    return str(found.experiment_id)


def _restore_experiment(client: "MlflowClient", found: "Experiment") -> None:
    """If somebody has deleted it. Its runs come back with it."""
    from mlflow.exceptions import MlflowException

    if found.lifecycle_stage != "deleted":
        return
    try:
        client.restore_experiment(found.experiment_id)
    except MlflowException as error:
        raise TrackingRefused(
            f"the experiment {found.name} was deleted in MLflow and this user may not restore it. As administrator: "
            f"mlflow experiments restore --experiment-id {found.experiment_id}; or set CIFAR_EXPERIMENT."
        ) from error
    _log.warning("the experiment %s was deleted in MLflow: it is restored", found.name)


def exists(client: "MlflowClient", run_id: str | None) -> bool:
    """Whether there is such a run that nobody has deleted."""
    from mlflow.exceptions import MlflowException

    if run_id is None:
        return False
    try:
        return str(client.get_run(run_id).info.lifecycle_stage) == "active"
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise


def open_run(
    client: "MlflowClient", experiment: str, identity: Mapping[str, str], name: str, parent: str | None = None
) -> "Run":
    """The run whose tags are `identity`: found if an earlier try made it, else made; running either way."""
    _restore_experiment(client, client.get_experiment(experiment))
    for run in find_runs(client, experiment, identity):
        if run.data.tags.get("mlflow.parentRunId") == parent:
            client.update_run(run.info.run_id, status="RUNNING")
            return run
    tags = dict(identity) | ({"mlflow.parentRunId": parent} if parent else {})
    return client.create_run(experiment, run_name=name, tags=tags)


def find_runs(client: "MlflowClient", experiment: str, identity: Mapping[str, str]) -> "Sequence[Run]":
    """The runs whose tags are `identity`, the oldest first."""
    clauses = [f"tags.`{key}` {equals(value)}" for key, value in identity.items()]
    found = client.search_runs([experiment], " AND ".join(clauses), order_by=["attributes.start_time ASC"])
    return [run for run in found if identity.items() <= run.data.tags.items()]


def restore(client: "MlflowClient", run_id: str) -> None:
    """Bring a run back that somebody has deleted in MLflow."""
    from mlflow.exceptions import MlflowException

    if exists(client, run_id):
        return
    try:
        client.restore_run(run_id)
    except MlflowException as error:
        raise TrackingRefused(
            f"the MLflow run {run_id} was deleted and cannot be restored: {error}. Restore it in MLflow as its "
            "administrator, or start a new run."
        ) from error
    _log.warning("the MLflow run %s was deleted: it is restored", run_id)


@contextmanager
def closing(client: "MlflowClient", run_id: str) -> Iterator[None]:
    """Sets the run's status when the context ends: FINISHED, FAILED, or KILLED after SIGTERM.

    The status stays when another process has taken over the lease: the run is that one's now.
    """
    try:
        yield
    except LeaseLost:
        raise
    except BaseException as error:
        with tracking_warnings():  # what failed first is what the caller should know
            client.set_terminated(run_id, "KILLED" if isinstance(error, Stopped | KeyboardInterrupt) else "FAILED")
        raise
    client.set_terminated(run_id, "FINISHED")


@contextmanager
def tracking_warnings() -> Iterator[None]:
    """Turns what MLflow raises into a warning in the log."""
    try:
        with tracking_errors():
            yield
    except TrackingError as error:
        _log.warning("%s", error)


def log_params(client: "MlflowClient", run_id: str, params: Mapping[str, Any]) -> None:
    from mlflow.entities import Param

    client.log_batch(run_id, params=[Param(key, str(value)) for key, value in params.items()])


def note(client: "MlflowClient", run_id: str) -> str:
    """The description of a run, in Markdown; empty if it has none."""
    return str(client.get_run(run_id).data.tags.get(NOTE, ""))


def log_tags(client: "MlflowClient", run_id: str, tags: Mapping[str, Any]) -> None:
    from mlflow.entities import RunTag

    client.log_batch(run_id, tags=[RunTag(key, str(value)) for key, value in tags.items() if value is not None])


def log_metrics(
    client: "MlflowClient", run_id: str, metrics: Mapping[str, float], step: int = 0, model_id: str | None = None
) -> None:
    """Numbers of one step; those given with `model_id` show on the model's own page as well."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    finite = {key: float(value) for key, value in metrics.items() if math.isfinite(value)}
    client.log_batch(
        run_id, metrics=[Metric(key, value, now, step, model_id=model_id) for key, value in finite.items()]
    )


def logged_steps(client: "MlflowClient", run_id: str, metric: str) -> set[int]:
    return {entry.step for entry in client.get_metric_history(run_id, metric)}


def log_dataset(client: "MlflowClient", run_id: str, dataset: DatasetVersion, context: str) -> None:
    """The dataset version as an MLflow dataset input, so that the UI shows and filters by it."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    entity = Dataset(
        name=dataset.name[:500],  # MLflow keeps no more
        digest=dataset.digest[:32],  # MLflow keeps 36 characters
        source_type="s3",
        source=json.dumps({"uri": dataset.uri}),
        profile=json.dumps({"counts": dataset.counts, "classes": list(dataset.classes)}),
    )
    client.log_inputs(run_id, [DatasetInput(entity, [InputTag("mlflow.data.context", context)])])


def run_url(run_id: str, experiment: str, artifact: str | None = None) -> str:
    """The run's page in the MLflow UI, or that of one of its artifacts."""
    page = f"{_pages()}/experiments/{experiment}/runs/{run_id}"
    return f"{page}/artifacts/{quote(artifact)}?{_UI}" if artifact else f"{page}?{_UI}"


def version_url(name: str, version: int) -> str:
    """The page of a registered version."""
    return version_urls(name, [version])[version]


def version_urls(name: str, versions: Iterable[int]) -> dict[int, str]:
    """The pages of many; the settings are read once."""
    page = f"{_pages()}/models/{quote(name)}/versions"
    return {version: f"{page}/{version}?{_UI}" for version in versions}


def compare_url(run_ids: Iterable[str], experiment: str) -> str:
    """MLflow's charts of these runs, the most accurate first.

    Its page `compare-runs` always opens on the first parameters by name. Sorted by date, child runs would be hidden.
    """
    wanted = quote(f"attributes.run_id IN ({', '.join(repr(run_id) for run_id in run_ids)})")
    order = f"orderByKey={quote('metrics.`test_accuracy`')}&orderByAsc=false"
    return f"{_pages()}/experiments/{experiment}/runs?compareRunsMode=CHART&searchFilter={wanted}&{order}&{_UI}"


def _pages() -> str:
    """Where a person's browser finds the UI: tasks in containers know the server by another name."""
    server = Settings().mlflow_url or os.environ.get("MLFLOW_TRACKING_URI", "")
    return f"{without_login(server).rstrip('/')}/#"


def equals(value: str) -> str:
    """MLflow's filters have no escape for the quote that ends a value: there, `_` of LIKE stands for any character."""
    if "'" not in value:
        return f"= '{value}'"
    pattern = re.sub(r"['\\]", "_", value)
    return f"LIKE '{pattern}'"
