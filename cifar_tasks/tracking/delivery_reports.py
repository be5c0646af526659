"""What a delivery is checked with and where its report is kept: the champion's predictions, S3 and MLflow."""

import logging
import re
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cifar_tasks.data.images import Images
from cifar_tasks.data.lines.line_index import LineIndex, read_index
from cifar_tasks.data.lines.line_log import ROOT, LineDataset, LineLog
from cifar_tasks.data.lines.line_snapshot import validation_positions
from cifar_tasks.data.quality.delivery import Delivery
from cifar_tasks.data.quality.quality_page import headline, quality_page
from cifar_tasks.data.quality.quality_report import QualityReport
from cifar_tasks.data.quality.snapshot import Predictions, Snapshot
from cifar_tasks.data.splits import Indices
from cifar_tasks.errors import IntegrityError
from cifar_tasks.evaluation.names import markdown
from cifar_tasks.settings import Settings
from cifar_tasks.storage.s3 import S3Store
from cifar_tasks.tracking import model_registry, runs
from cifar_tasks.tracking.airflow_links import DAG_RUN, markdown_links
from cifar_tasks.tracking.saved_model import is_stored, load_model

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

LINE, QUALITY = "cifar.line", "cifar.quality"
"""Tags of the MLflow run of a report: the line, and `passed` or `failed`."""
REFERENCE = 2_000
"""Validation images that the champion classifies for comparison."""

_log = logging.getLogger(__name__)


def report_key(line: str, digest: str, ending: str) -> str:
    return f"{ROOT}/{line}/reports/{digest[:16]}.{ending}"


def champion_predictions(
    client: "MlflowClient", store: S3Store, log: LineLog, new: Snapshot, in_use: Snapshot | None
) -> Predictions | None:
    """None if there is no champion that was trained on this line and knows its classes, or nothing to classify.

    It judges images that it has not learnt. Which ones a champion of other data has learnt is not known.
    """
    name, dataset = Settings().registered_model, log.in_use()
    version = model_registry.version_with_alias(client, name, model_registry.CHAMPION)
    if version is None or in_use is None or dataset is None:
        return None
    try:
        classes = model_registry.class_names(version)
        uri = version.tags.get("cifar.dataset_uri")
        learnt = next((entry.dataset for entry in log.entries if entry.dataset.uri == uri), None)
        if learnt is None or not set(classes) <= set(new.classes):
            return None
        judged = _not_in_training(Delivery(new, in_use).judged, new, read_index(store, learnt))
        if not len(judged):
            return None
        if not is_stored(client, model_registry.saved_model_of(version)):
            raise IntegrityError(f"the stored model of version {version.version} was deleted")
        return _predict(store, version, classes, dataset, new, in_use, judged)
    except IntegrityError as error:
        _log.warning("label errors are looked for without the champion: %s", error)
        return None


def _not_in_training(positions: Indices, snapshot: Snapshot, index: LineIndex) -> Indices:
    learnt, digests = {row.digest for row in index.by_split["train"]}, snapshot.images.digests
    return positions[[digests[position] not in learnt for position in positions]]


def _predict(
    store: S3Store,
    version: "ModelVersion",
    classes: tuple[str, ...],
    dataset: LineDataset,
    new: Snapshot,
    in_use: Snapshot,
    judged: Indices,
) -> Predictions:
    # Loads torch.
    from scipy.special import softmax

    from cifar_tasks.training.device import choose_device
    from cifar_tasks.training.logits import predict_logits, resized

    model = load_model(model_registry.saved_model_of(version), choose_device())
    size, number = int(version.tags.get("cifar.image_size", 32)), {name: n for n, name in enumerate(new.classes)}
    columns = [number[name] for name in classes]

    def probabilities(images: Images) -> NDArray[np.float64]:
        found = np.zeros((len(images), len(new.classes)))
        found[:, columns] = softmax(predict_logits(model, resized(images, size)).astype(np.float64), axis=1)
        return found

    unlearnt = np.random.default_rng(0).permutation(validation_positions(store, dataset))[:REFERENCE]
    to_new = np.array([number.get(name, -1) for name in in_use.classes])
    labels = to_new[in_use.images.labels[unlearnt]]
    unlearnt, labels = unlearnt[labels >= 0], labels[labels >= 0]
    return Predictions(
        model=f"version {version.version}",
        positions=judged,
        probabilities=probabilities(new.images.read(judged)),
        reference_labels=labels,
        reference_probabilities=probabilities(in_use.images.read(unlearnt)),
    )


def keep_report(
    client: "MlflowClient",
    store: S3Store,
    line: str,
    dataset: LineDataset,
    snapshot: Snapshot,
    report: QualityReport,
    workflow_url: str | None,
) -> str:
    """As JSON and as a page, in S3 and with an MLflow run of its own; returns the address of the page."""
    title = f"Dataset line {line}, version {dataset.digest[:16]}"
    page = quality_page(report, snapshot, title=title, links=[("DAG run", workflow_url)] if workflow_url else [])
    content = report.model_dump_json(indent=1)
    store.put(report_key(line, dataset.digest, "json"), content.encode())
    store.put(report_key(line, dataset.digest, "html"), page.encode())
    experiment = runs.experiment_id(client, f"{Settings().experiment}-lines")
    identity = {LINE: line, runs.DATASET: dataset.digest}
    run = runs.open_run(client, experiment, identity, f"{line} {dataset.digest[:16]}").info.run_id
    with runs.closing(client, run):
        result = "passed" if report.passed else "failed"
        lines = [f"- {markdown(reason)}" for reason in report.reasons]
        link = markdown_links({"Airflow run": workflow_url})
        note = "\n".join([f"**{markdown(headline(report))}**", "", *lines, *(["", link] if link else [])])
        runs.log_tags(client, run, {QUALITY: result, runs.NOTE: note, DAG_RUN: workflow_url})
        measured = {row.check: row.value for row in report.rows if row.value is not None}
        runs.log_metrics(client, run, {re.sub(r"[^\w .-]", "", name): value for name, value in measured.items()})
        client.log_text(run, content, "report.json")
        client.log_text(run, page, "report.html")
    return runs.run_url(run, experiment, "report.html")
