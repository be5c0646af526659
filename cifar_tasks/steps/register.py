"""Registration: a version of the registered model for each training run."""

import json
import logging

from cifar_tasks.config import flat
from cifar_tasks.data.versions import SPLITS, DatasetVersion, load_version
from cifar_tasks.errors import IntegrityError
from cifar_tasks.evaluation.names import markdown
from cifar_tasks.models import get_model
from cifar_tasks.settings import Settings
from cifar_tasks.steps.payloads import EvaluatedModel, RegisteredModel, TrainPlan
from cifar_tasks.storage.s3 import S3Store
from cifar_tasks.tracking import model_registry, runs
from cifar_tasks.tracking.airflow_links import MODELS_PAGE, links_of_workflow, markdown_links, page_of_version
from cifar_tasks.tracking.decisions import keeping_decision
from cifar_tasks.tracking.evaluations import StoredEvaluation, read_evaluation
from cifar_tasks.tracking.runs import DATASET, INITIAL_WEIGHTS, MODEL, PROFILE, START_FROM, WORKFLOW
from cifar_tasks.tracking.trained_before import CODE, CONFIG
from cifar_tasks.tracking.version_evidence import TEST_SET
from cifar_tasks.tuning.space import free_space

_log = logging.getLogger(__name__)


def register_model(evaluated: EvaluatedModel) -> RegisteredModel:
    """A version for this training run, tagged with what it comes from and how it scores."""
    trained = evaluated.trained
    data, source = trained.plan.data, trained.plan.params_source
    name = data.request.registered_model
    client, store = runs.mlflow_client(), S3Store(Settings().bucket)
    version = load_version(store, data.dataset_uri)
    evaluation = read_evaluation(store, evaluated.test_set, trained.saved.sha256)
    if evaluation is None:
        raise IntegrityError(
            f"the evaluation of {trained.saved.uri} was deleted from {store.uri('evaluations/')}. "
            "Run the task evaluate again."
        )
    tags = {
        MODEL: trained.plan.config.model,
        DATASET: version.digest,
        PROFILE: data.request.profile,
        "cifar.dataset_uri": version.uri,
        **model_registry.class_tags(version.classes),
        "cifar.placeholder": str(version.placeholder).lower(),
        "cifar.image_size": version.image_size,
        "cifar.resize": version.resize,
        CONFIG: trained.config_sha256,
        CODE: trained.code_sha256,
        START_FROM: data.request.start_from,
        INITIAL_WEIGHTS: trained.initial_weights,
        "cifar.parameters": trained.parameters,
        "cifar.validation_accuracy": trained.validation_accuracy,
        "cifar.test_accuracy": evaluated.test_accuracy,
        TEST_SET: evaluation.test_set.digest,
        "cifar.test_images": evaluation.test_set.images,
        "cifar.calibration_error": evaluation.calibration.expected_error,
        "cifar.brier_score": evaluation.calibration.brier,
        "cifar.accuracy_altered": evaluation.robustness.mean,
        "cifar.latency_ms": evaluation.latency.single_ms,
        "cifar.images_per_second": evaluation.latency.images_per_second,
        "cifar.latency_measured_on": evaluation.latency.hardware,
        "cifar.size_mb": evaluation.size_mb,
        "cifar.params_source": source.text if source else "recipe",
        WORKFLOW: data.workflow.id,
        "cifar.mlflow_url": trained.mlflow_url,
        "cifar.report_url": runs.run_url(data.parent_run_id, data.experiment_id, runs.REPORT_PAGE),
        "cifar.airflow_url": data.workflow.url or "",
    }
    if line := data.line:
        tags |= line.tags()
    tags |= tuned_tags(trained.plan)
    with runs.tracking_errors():
        text = describe(evaluated, evaluation, version)
        number = model_registry.register(client, name, trained.saved, trained.run_id, tags)
        before = client.get_model_version(name, str(number)).description
        client.update_model_version(name, str(number), keeping_decision(text, before or ""))
        url, page = runs.version_url(name, number), page_of_version(name, number)
        _log.info("Model version: %s", url)
        note = markdown_links({f"Version {number} of {markdown(name)}": url, "beside the champion": page})
        runs.log_tags(client, trained.run_id, {runs.NOTE: f"{text}\n\n{note}", MODELS_PAGE: page})
        if page:
            model_registry.set_tag(client, name, MODELS_PAGE, page, number)
    _log.info("registered as version %d of %s", number, name)
    return RegisteredModel(evaluated=evaluated, mlflow_url=trained.mlflow_url, name=name, version=number)


def tuned_tags(plan: TrainPlan) -> dict[str, str]:
    """Of a version that a search led to: what it was trained with, for later runs. What the user has set is part of it:
    the other values were good beside that."""
    if plan.params_source is None:
        return {}
    values = flat(plan.config)
    params = {name: values[name] for name in free_space(plan.config)}
    return {model_registry.TUNED_PARAMS: json.dumps(params), "cifar.study": plan.params_source.study or ""}


def describe(evaluated: EvaluatedModel, evaluation: StoredEvaluation, version: DatasetVersion) -> str:
    """Markdown: what was trained on which data, how it scores, and where it comes from."""
    trained, data = evaluated.trained, evaluated.trained.plan.data
    source, calibration = trained.plan.params_source, evaluation.calibration
    counts = ", ".join(f"{version.size(split):,} {split}" for split in SPLITS)
    links = {
        "Training run": trained.mlflow_url,
        "workflow run": data.mlflow_url,
        **links_of_workflow(data.workflow.id, data.workflow.url, data.request.registered_model),
        **(data.line.links() if data.line else {}),
        "study": source.study_url if source else None,
    }
    paragraphs = [f"**{data.banner}**"] if data.banner else []
    paragraphs += [f"**Warning:** {markdown(warning)}"] if (warning := trained.plan.search_warning) else []
    paragraphs += [
        f"Test accuracy **{evaluated.test_accuracy:.2%}**, validation accuracy {trained.validation_accuracy:.2%}.",
        f"Calibration error {calibration.expected_error:.3f}, Brier score {calibration.brier:.3f}. "
        f"Accuracy on altered test images {evaluation.robustness}.",
        f"Size {evaluation.size_mb:.1f} MB. Latency {markdown(str(evaluation.latency))}.",
        f"{get_model(trained.plan.config.model).title} for {len(version.classes)} classes, "
        f"{version.image_size} × {version.image_size} pixels. Epochs: {trained.epochs}. "
        f"Hyperparameters: {markdown(source.text) if source else 'recipe'}. "
        f"Initial weights: {markdown(trained.initial_weights)}.",
        f"Data: {markdown(version.name)}, version `{version.digest[:16]}` ({counts} images)"
        f"{f', entry {data.line.entry} of the dataset line {markdown(data.line.line)}' if data.line else ''}.",
        markdown_links(links),
    ]
    return "\n\n".join(paragraphs)
