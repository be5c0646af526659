"""The last task: one page that shows the whole run, and the rows and links that a terminal prints."""

import base64
import logging
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifar_tasks.data import SPLITS, DatasetVersion, load_version
from cifar_tasks.settings import Settings
from cifar_tasks.steps.workflow import WorkflowRun
from cifar_tasks.storage.s3 import S3Store
from cifar_tasks.tracking import runs
from cifar_tasks.tracking.runs import MODEL, WORKFLOW

if TYPE_CHECKING:
    from mlflow import MlflowClient

Json = dict[str, Any]

PAGE = "report.html"
FIGURES = {
    "learning_curves.png": "Learning curves",
    "evaluation/confusion_matrix.png": "Confusion matrix",
    "evaluation/test_images.png": "32 random test images",
}

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReportRow:
    """One model in the table at the end."""

    model: str
    parameters: int
    epochs: int
    validation_accuracy: float
    test_accuracy: float
    version: int
    aliases: tuple[str, ...]
    mlflow_url: str
    registry_url: str


def report(candidates: list[Json], decision: Json, data: Json, workflow: Json) -> Json:
    """Write the page, close the parent run as finished; returns the rows and links for a terminal."""
    settings, run = Settings(), WorkflowRun(**workflow)
    client, version = runs.connect(), load_version(S3Store(settings.bucket), data["uri"])
    with runs.tracking_errors(), runs.closing(client, data["parent_run_id"]):
        experiment = runs.experiment_id(client, settings.experiment)
        rows = [_row(client, candidate) for candidate in candidates]
        links = {
            "airflow_url": run.url,
            "mlflow_url": data["mlflow_url"],
            "compare_url": runs.compare_url([candidate["run_id"] for candidate in candidates], experiment),
            "report_url": runs.run_url(data["parent_run_id"], experiment, PAGE),
        }
        page = _page(client, rows, candidates, decision, data, version, links)
        client.log_text(data["parent_run_id"], page, PAGE)
        best = max(row.test_accuracy for row in rows)
        runs.log_metrics(client, data["parent_run_id"], {"test_accuracy": best})
    _log.info("report: %s", links["report_url"])
    return {
        "rows": [asdict(row) for row in rows],
        "banner": data["banner"],
        "reasons": list(decision["reasons"]),
        **links,
    }


def fail_workflow(workflow: Json) -> None:
    """Mark the parent run as failed, if there is one: its last task did not come to close it."""
    client, run = runs.connect(), WorkflowRun(**workflow)
    with runs.tracking_errors():
        experiment = runs.experiment_id(client, Settings().experiment)
        for parent in runs.find_runs(client, experiment, {WORKFLOW: run.id, MODEL: "all"}):
            client.set_terminated(parent.info.run_id, "FAILED")


def _row(client: "MlflowClient", candidate: Json) -> ReportRow:
    name = candidate["registered_model"]
    aliases = client.get_model_version(name, str(candidate["version"])).aliases
    return ReportRow(
        model=candidate["model"],
        parameters=candidate["parameters"],
        epochs=candidate["epochs"],
        validation_accuracy=candidate["validation_accuracy"],
        test_accuracy=candidate["test_accuracy"],
        version=candidate["version"],
        aliases=tuple(sorted(aliases)),
        mlflow_url=candidate["mlflow_url"],
        registry_url=runs.version_url(name, candidate["version"]),
    )


def _page(
    client: "MlflowClient",
    rows: list[ReportRow],
    candidates: list[Json],
    decision: Json,
    data: Json,
    version: DatasetVersion,
    links: Json,
) -> str:
    """A page that needs nothing but itself: figures are inside."""
    from jinja2 import Environment, PackageLoader, select_autoescape

    models = [
        {
            "name": candidate["model"],
            "origin": candidate["origin"],
            "figures": [(title, _image(client, candidate["run_id"], path)) for path, title in FIGURES.items()],
            "table": _text(client, candidate["run_id"], "evaluation/classification_report.txt"),
        }
        for candidate in candidates
    ]
    template = Environment(
        loader=PackageLoader("cifar_tasks.steps", "templates"), autoescape=select_autoescape(), trim_blocks=True
    ).get_template("report.html.jinja")
    sample = _image(client, data["parent_run_id"], "dataset/sample.png")
    return template.render(
        rows=rows,
        models=models,
        decision=decision,
        banner=data["banner"],
        version=version,
        sizes={split: version.size(split) for split in SPLITS},
        sample=sample,
        links=links,
    )


def _artifact(client: "MlflowClient", run_id: str, path: str) -> bytes:
    with tempfile.TemporaryDirectory(prefix="cifar-report-") as folder:
        return Path(client.download_artifacts(run_id, path, folder)).read_bytes()


def _image(client: "MlflowClient", run_id: str, path: str) -> str:
    return "data:image/png;base64," + base64.b64encode(_artifact(client, run_id, path)).decode()


def _text(client: "MlflowClient", run_id: str, path: str) -> str:
    return _artifact(client, run_id, path).decode()
