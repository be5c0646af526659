"""Evaluation of the model that was saved, loaded back from storage, and of no other."""

import json
import logging
from typing import TYPE_CHECKING, Any

import torch

from cifar_tasks.data import DatasetVersion, LabelledImages, load_dataset, load_version
from cifar_tasks.errors import IntegrityError
from cifar_tasks.evaluation import plots
from cifar_tasks.evaluation.metrics import Evaluation, agrees, evaluate
from cifar_tasks.settings import Settings
from cifar_tasks.steps.start import as_tensor, sample
from cifar_tasks.storage.s3 import S3Store, canonical_json
from cifar_tasks.tracking import runs
from cifar_tasks.tracking.saved_model import SavedModel, load_model
from cifar_tasks.training import choose_device, predict_logits

if TYPE_CHECKING:
    from mlflow import MlflowClient

Json = dict[str, Any]

_log = logging.getLogger(__name__)


def evaluate_model(trained: Json, data: Json) -> Json:
    """Score the saved model on the test images: the only reading of them for this model.

    Raises `IntegrityError` if its validation accuracy is not what training logged. Adds `test_loss` and
    `test_accuracy` to what training returned.
    """
    settings = Settings()
    store, client = S3Store(settings.bucket), runs.connect()
    done = f"{trained['prefix']}/evaluated.json"
    if store.exists(done):
        _log.info("evaluated already")
        return {**trained, **json.loads(store.get(done))}
    version = load_version(store, data["uri"])
    with runs.tracking_errors(), runs.closing(client, trained["run_id"]):
        client.update_run(trained["run_id"], status="RUNNING")
        model = load_model(SavedModel(trained["model_uri"], trained["model_sha256"]), choose_device())
        validation = load_dataset(store, version, ["validation"], settings.home / "cache").validation
        _check_validation_accuracy(model, sample(validation, trained["validation_images"], trained["seed"]), trained)
        test = load_dataset(store, version, ["test"], settings.home / "cache").test
        logits = _answers(model, test)
        result = evaluate(logits.numpy(), test.labels, version.classes)
        _log_evaluation(client, trained, result, version)
        _log_test_grid(client, trained, test, logits, version)
    numbers = {"test_loss": result.loss, "test_accuracy": result.accuracy}
    store.put(done, canonical_json(numbers))
    _log.info("%s: test accuracy %.2f %% on %d images", trained["model"], 100 * result.accuracy, len(test))
    return {**trained, **numbers}


def test_accuracy(saved: SavedModel, version: DatasetVersion) -> float:
    """Of a model that was saved for another dataset version, on the test images of this one."""
    settings = Settings()
    test = load_dataset(S3Store(settings.bucket), version, ["test"], settings.home / "cache").test
    return evaluate(_answers(load_model(saved, choose_device()), test).numpy(), test.labels, version.classes).accuracy


def _answers(model: torch.nn.Module, part: LabelledImages) -> torch.Tensor:
    return predict_logits(model, as_tensor(part.images)).cpu()


def _check_validation_accuracy(model: torch.nn.Module, part: LabelledImages, trained: Json) -> None:
    """The report's second defect, caught: what was saved must score what training scored."""
    accuracy = float((_answers(model, part).argmax(1).numpy() == part.labels).mean())
    if not agrees(trained["validation_accuracy"], accuracy, len(part)):
        raise IntegrityError(
            f"the saved model {trained['model_uri']} has validation accuracy {accuracy:.4f}, training logged "
            f"{trained['validation_accuracy']:.4f}: what was saved is not what was trained. It is not registered."
        )
    _log.info("validation accuracy of the reloaded model: %.4f, as training logged", accuracy)


def _log_evaluation(client: "MlflowClient", trained: Json, result: Evaluation, version: DatasetVersion) -> None:
    run_id, model_id = trained["run_id"], SavedModel(trained["model_uri"], "").model_id
    numbers = {"test_loss": result.loss, "test_accuracy": result.accuracy}
    averages = {f"test_macro_{name}": result.report["macro avg"][name] for name in ("precision", "recall", "f1-score")}
    runs.log_metrics(client, run_id, {**numbers, **averages}, model_id=model_id)
    runs.log_dataset(client, run_id, version, "testing")
    title = f"{trained['model']} on the test images"
    client.log_figure(
        run_id, plots.confusion_matrix(result.confusion, version.classes, title), "evaluation/confusion_matrix.png"
    )
    counts = {"classes": list(version.classes), "rows": "true", "counts": result.confusion.tolist()}
    client.log_dict(run_id, counts, "evaluation/confusion_matrix.json")
    client.log_dict(run_id, result.report, "evaluation/classification_report.json")
    client.log_text(run_id, result.table, "evaluation/classification_report.txt")
    _log.info("%s", result.table)


def _log_test_grid(
    client: "MlflowClient", trained: Json, test: LabelledImages, logits: torch.Tensor, version: DatasetVersion
) -> None:
    chosen = plots.sample_indices(len(test), trained["seed"])
    shown, predicted = test.take(chosen), logits.argmax(1).numpy()[chosen]
    grid = plots.image_grid(
        shown.images,
        [version.classes[label] for label in shown.labels],
        [version.classes[label] for label in predicted],
        title=f"{trained['model']}: 32 random test images, true → predicted",
    )
    client.log_figure(trained["run_id"], grid, "evaluation/test_images.png")
