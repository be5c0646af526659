"""One page that shows the whole run, the rows and links that a terminal prints, and the candidate of the run."""

import base64
import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifar_tasks.data.versions import SPLITS, DatasetVersion, load_version
from cifar_tasks.errors import WeightsError
from cifar_tasks.evaluation.names import markdown
from cifar_tasks.evaluation.page_templates import page_template
from cifar_tasks.settings import Settings
from cifar_tasks.steps.payloads import RegisteredModel, TrainPlan, WorkflowRun
from cifar_tasks.steps.promotion_payloads import PromotionRequest
from cifar_tasks.steps.report_payloads import ReportRow, RunReport
from cifar_tasks.storage.s3 import S3Store
from cifar_tasks.tracking import runs
from cifar_tasks.tracking.airflow_links import links_of_workflow, markdown_links
from cifar_tasks.tracking.decisions import keeping_decision
from cifar_tasks.tracking.endings import end_runs

if TYPE_CHECKING:
    from mlflow import MlflowClient

FIGURES = {
    "learning_curves.png": "Learning curves",
    "evaluation/confusion_matrix.png": "Confusion matrix",
    "evaluation/confused_images.png": "The most confused pairs",
    "evaluation/reliability.png": "Calibration",
    "evaluation/test_images.png": "32 random test images",
}

_log = logging.getLogger(__name__)


def report(registered: list[RegisteredModel], plans: list[TrainPlan]) -> RunReport:
    """Write the page, close the parent run as finished; returns rows and links for a terminal, and what to promote.

    `plans` are those of the run: a model that was skipped is named with the reason. `WeightsError` if all were.
    """
    data, store = plans[0].data, S3Store(Settings().bucket)
    skipped = skipped_models(store, registered, plans)
    if not registered:
        raise WeightsError("no model was trained. " + " ".join(skipped))
    notes = skipped + [plan.search_warning for plan in plans if plan.search_warning]
    candidate = choose_candidate(registered)
    _log.info("MLflow run: %s", data.mlflow_url)
    _log.info("Model version: %s", runs.version_url(candidate.name, candidate.version))
    client, version = runs.mlflow_client(), load_version(store, data.dataset_uri)
    with runs.tracking_errors():
        runs.restore(client, data.parent_run_id)
    with runs.tracking_errors(), runs.closing(client, data.parent_run_id):
        run_ids = [model.evaluated.trained.run_id for model in registered]
        summary = RunReport(
            rows=[_row(model, model is candidate) for model in registered],
            banner=data.banner,
            warnings=[*notes, *version.warnings],
            notes=notes,
            reasons=[_ranking(registered)],
            promotion=PromotionRequest(
                registered_model=candidate.name,
                version=candidate.version,
                mode=data.request.promotion,
                limits=Settings().promotion_limits,
            ),
            airflow_url=data.workflow.url,
            mlflow_url=data.mlflow_url,
            compare_url=runs.compare_url(run_ids, data.experiment_id),
            report_url=runs.run_url(data.parent_run_id, data.experiment_id, runs.REPORT_PAGE),
        )
        client.log_text(data.parent_run_id, _page(client, registered, version, summary), runs.REPORT_PAGE)
        by_model = {f"{row.model}_test_accuracy": row.test_accuracy for row in summary.rows}
        accuracy = candidate.evaluated.test_accuracy
        runs.log_metrics(client, data.parent_run_id, {"accuracy": accuracy, "test_accuracy": accuracy, **by_model})
        links = links_of_workflow(data.workflow.id, data.workflow.url, data.request.registered_model)
        links |= data.line.links() if data.line else {}
        note = keeping_decision(describe(summary, version, links), runs.note(client, data.parent_run_id))
        runs.log_tags(client, data.parent_run_id, {runs.NOTE: note})
    _log.info("Report: %s", summary.report_url)
    return summary


def skipped_models(store: S3Store, registered: list[RegisteredModel], plans: list[TrainPlan]) -> list[str]:
    """Why the run did without some of its models."""
    trained = {model.evaluated.trained.plan.config.model for model in registered}
    return [_why_skipped(store, plan) for plan in plans if plan.config.model not in trained]


def _why_skipped(store: S3Store, plan: TrainPlan) -> str:
    try:
        return store.get(plan.skipped_key).decode()
    except KeyError:
        return f"{plan.config.model} is not trained: its task was skipped."


def choose_candidate(registered: list[RegisteredModel]) -> RegisteredModel:
    """The highest validation accuracy; of equals the smaller model, then the older version.

    Not the highest test accuracy: the best of several on the test images is so partly by chance.
    """

    def rank(model: RegisteredModel) -> tuple[float, int, int]:
        trained = model.evaluated.trained
        return trained.validation_accuracy, -trained.parameters, -model.version

    return max(registered, key=rank)


def _ranking(registered: list[RegisteredModel]) -> str:
    ranked = sorted(registered, key=lambda model: -model.evaluated.trained.validation_accuracy)
    named = (
        f"{model.evaluated.trained.plan.config.model} {model.evaluated.trained.validation_accuracy:.2%} "
        f"(version {model.version})"
        for model in ranked
    )
    return f"validation accuracy: {', '.join(named)}; version {choose_candidate(registered).version} is the candidate"


def describe(report: RunReport, version: DatasetVersion, links: dict[str, str | None]) -> str:
    """The description of the parent run: the report in short, in Markdown."""
    paragraphs = [f"**{report.banner}**"] if report.banner else []
    rows = [
        f"| [{row.model}]({row.mlflow_url}) | {row.validation_accuracy:.2%} | {row.test_accuracy:.2%} "
        f"| [{row.version}]({row.registry_url}) | {'yes' if row.candidate else ''} |"
        for row in report.rows
    ]
    head = "| model | validation | test | version | candidate |\n| --- | --- | --- | --- | --- |"
    paragraphs.append("\n".join([head, *rows]))
    paragraphs += [f"**Warning:** {markdown(warning)}" for warning in report.warnings]
    paragraphs.append("\n".join(f"- {markdown(reason)}" for reason in report.reasons))
    links = {"Report": report.report_url, "models side by side": report.compare_url, **links}
    paragraphs.append(markdown_links(links))
    paragraphs.append(f"Data: {markdown(version.name)}, `{version.uri}`")
    return "\n\n".join(paragraphs)


def end_workflow(workflow: WorkflowRun, status: str) -> None:
    """End the MLflow runs of a workflow run that did not come to its report, or whose tasks were marked in the UI."""
    client = runs.mlflow_client()
    with runs.tracking_errors():
        end_runs(client, runs.experiment_id(client, Settings().experiment), workflow.id, status)


def _row(registered: RegisteredModel, candidate: bool) -> ReportRow:
    trained = registered.evaluated.trained
    return ReportRow(
        model=trained.plan.config.model,
        parameters=trained.parameters,
        epochs=trained.epochs,
        validation_accuracy=trained.validation_accuracy,
        test_accuracy=registered.evaluated.test_accuracy,
        version=registered.version,
        candidate=candidate,
        mlflow_url=trained.mlflow_url,
        registry_url=runs.version_url(registered.name, registered.version),
    )


def _page(
    client: "MlflowClient", registered: list[RegisteredModel], version: DatasetVersion, summary: RunReport
) -> str:
    trainings = [model.evaluated.trained for model in registered]
    models = [
        {
            "name": trained.plan.config.model,
            "params_source": trained.plan.params_source,
            "figures": [
                (title, image) for path, title in FIGURES.items() if (image := _image(client, trained.run_id, path))
            ],
            "table": _artifact(client, trained.run_id, "evaluation/classification_report.txt").decode(),
        }
        for trained in trainings
    ]
    return render(summary, version, models, _image(client, trainings[0].plan.data.parent_run_id, "dataset/sample.png"))


def render(summary: RunReport, version: DatasetVersion, models: list[dict[str, Any]], sample: str) -> str:
    """A page that needs no other file: images are `data:` URLs."""
    return page_template("cifar_tasks.steps", "report.html.jinja").render(
        report=summary,
        models=models,
        version=version,
        sizes={split: version.size(split) for split in SPLITS},
        links=_links(summary),
        sample=sample,
    )


def _links(summary: RunReport) -> list[tuple[str, str]]:
    """Titles and addresses, as text: MLflow shows the page in a frame that may open nothing."""
    links = [("MLflow run", summary.mlflow_url), ("Models side by side", summary.compare_url)]
    if summary.airflow_url:
        links.append(("Airflow run", summary.airflow_url))
    for row in summary.rows:
        links += [(f"{row.model}: training", row.mlflow_url), (f"{row.model}: version {row.version}", row.registry_url)]
    return links


def _artifact(client: "MlflowClient", run_id: str, path: str) -> bytes:
    """Empty if somebody has deleted it."""
    folder = path.rpartition("/")[0] or None
    if path not in {entry.path for entry in client.list_artifacts(run_id, folder)}:
        _log.warning("the MLflow run %s has no %s any more: the report does without", run_id, path)
        return b""
    with tempfile.TemporaryDirectory(prefix="cifar-report-") as target:
        return Path(client.download_artifacts(run_id, path, target)).read_bytes()


def _image(client: "MlflowClient", run_id: str, path: str) -> str:
    data = _artifact(client, run_id, path)
    return "data:image/png;base64," + base64.b64encode(data).decode() if data else ""
