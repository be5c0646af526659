"""Evaluation of the model that was saved, loaded back from storage, and of no other."""

import logging
from typing import TYPE_CHECKING

import torch

from cifar_tasks.data.images import LabelledImages
from cifar_tasks.data.loading import load_split
from cifar_tasks.data.versions import load_version
from cifar_tasks.errors import IntegrityError
from cifar_tasks.evaluation.metrics import Evaluation, agrees
from cifar_tasks.settings import Settings
from cifar_tasks.steps.inputs import earlier_result, sample
from cifar_tasks.steps.payloads import EvaluatedModel, TrainedModel
from cifar_tasks.storage.s3 import S3Store
from cifar_tasks.tracking import runs
from cifar_tasks.tracking.evaluation_figures import log_figures
from cifar_tasks.tracking.evaluations import (
    StoredEvaluation,
    ensure_evaluated,
    find_whole_evaluation,
    read_probabilities,
)
from cifar_tasks.tracking.saved_model import open_model
from cifar_tasks.training.device import choose_device
from cifar_tasks.training.logits import predict_logits

if TYPE_CHECKING:
    from mlflow import MlflowClient

CLASSES_IN_LOG = 50
"""With more classes the table is in MLflow only."""

_log = logging.getLogger(__name__)


def evaluate_model(trained: TrainedModel) -> EvaluatedModel:
    """Score the saved model on the test images: the only reading of them for this model.

    Raises `IntegrityError` if its validation accuracy is not what training logged.
    """
    settings = Settings()
    store, client = S3Store(settings.bucket), runs.mlflow_client()
    done = f"{trained.prefix}/evaluated.json"
    earlier = earlier_result(store, done, EvaluatedModel)
    if earlier and find_whole_evaluation(store, earlier.test_set, trained.saved.sha256):
        _log.info("evaluated already")
        return earlier
    version = load_version(store, trained.plan.data.dataset_uri)
    with runs.tracking_errors(), runs.closing(client, trained.run_id):
        runs.restore(client, trained.run_id)
        client.update_run(trained.run_id, status="RUNNING")
        opened, cache = open_model(trained.saved, choose_device()), settings.home / "cache"
        _check_validation_accuracy(opened.module, load_split(store, version, "validation", cache), trained)
        evaluation = ensure_evaluated(store, trained.saved, version, cache, opened=opened)
        test = load_split(store, version, "test", cache)  # for pictures
        probabilities = read_probabilities(store, evaluation)
        _log_scores(client, trained, evaluation)
        runs.log_dataset(client, trained.run_id, version, "testing")
        config = trained.plan.config
        result = log_figures(
            client, trained.run_id, evaluation, test, probabilities, model=config.model, seed=config.seed
        )
        _log_averages(client, trained, result)
    evaluated = EvaluatedModel(
        trained=trained,
        mlflow_url=trained.mlflow_url,
        test_set=evaluation.test_set.digest,
        test_loss=evaluation.loss,
        test_accuracy=evaluation.accuracy,
    )
    store.put(done, evaluated.model_dump_json().encode())
    model_name = trained.plan.config.model
    _log.info("%s: test accuracy %.2f %% on %d images", model_name, 100 * evaluation.accuracy, len(test))
    return evaluated


def _check_validation_accuracy(model: torch.nn.Module, validation: LabelledImages, trained: TrainedModel) -> None:
    """The report's second defect, caught: what was saved must score what training scored."""
    part = sample(validation, trained.validation_images, trained.plan.config.seed)
    accuracy = float((predict_logits(model, part.images).argmax(axis=1) == part.labels).mean())
    if not agrees(trained.validation_accuracy, accuracy, len(part)):
        raise IntegrityError(
            f"the saved model {trained.saved.uri} has validation accuracy {accuracy:.4f}, training logged "
            f"{trained.validation_accuracy:.4f}: what was saved is not what was trained. It is not registered."
        )
    _log.info("validation accuracy of the reloaded model: %.4f, as training logged", accuracy)


def _log_scores(client: "MlflowClient", trained: TrainedModel, evaluation: StoredEvaluation) -> None:
    robust, latency = evaluation.robustness, evaluation.latency
    # MLflow sorts charts by name: its comparisons open on `accuracy`.
    metrics = {
        "accuracy": evaluation.accuracy,
        "test_accuracy": evaluation.accuracy,
        "test_loss": evaluation.loss,
        "test_calibration_error": evaluation.calibration.expected_error,
        "test_brier_score": evaluation.calibration.brier,
        "test_accuracy_altered": robust.mean,
        **{f"test_accuracy_{name}": accuracy for name, accuracy in robust.accuracies.items()},
        "test_latency_ms": latency.single_ms,
        "test_latency_batch_ms": latency.batch_ms,
        "test_images_per_second": latency.images_per_second,
        "model_size_mb": evaluation.size_mb,
    }
    runs.log_metrics(client, trained.run_id, metrics, model_id=trained.saved.model_id)
    runs.log_tags(client, trained.run_id, {"cifar.latency_measured_on": latency.hardware})
    client.log_text(trained.run_id, evaluation.model_dump_json(indent=1), "evaluation/evaluation.json")
    _log.info("calibration error %.3f, accuracy on altered images %s", evaluation.calibration.expected_error, robust)
    _log.info("%.2f MB, %s", evaluation.size_mb, latency)


def _log_averages(client: "MlflowClient", trained: TrainedModel, result: Evaluation) -> None:
    averages = {f"test_macro_{name}": result.report["macro avg"][name] for name in ("precision", "recall", "f1-score")}
    runs.log_metrics(client, trained.run_id, averages, model_id=trained.saved.model_id)
    if len(result.report["classes"]) <= CLASSES_IN_LOG:
        _log.info("%s", result.table)
