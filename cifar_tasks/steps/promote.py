"""Promotion: the best new version is compared with the champion, and the aliases follow the decision."""

import json
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from cifar_tasks.data.loading import load_split
from cifar_tasks.data.versions import DatasetVersion, load_version
from cifar_tasks.errors import IntegrityError
from cifar_tasks.promotion import Candidate, Unscored, best_of, decide
from cifar_tasks.settings import Settings
from cifar_tasks.steps.payloads import Promotion, RegisteredModel
from cifar_tasks.storage.s3 import S3Store
from cifar_tasks.tracking import model_registry, runs
from cifar_tasks.tracking.runs import DATASET, MODEL
from cifar_tasks.tracking.saved_model import SavedModel, is_stored

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

_log = logging.getLogger(__name__)


def promote(candidates: list[RegisteredModel]) -> Promotion:
    """Set `champion` to the best new version if it beats the champion in place; returns the decision with its reasons.

    The decision is kept with the parent run and with the best new version. The alias `champion` moves last.
    """
    name, data = candidates[0].name, candidates[0].evaluated.trained.plan.data
    client, version = runs.mlflow_client(), load_version(S3Store(Settings().bucket), data.dataset_uri)
    with runs.tracking_errors():
        runs.restore(client, data.parent_run_id)
        compared = [_candidate(model_registry.get_version(client, name, c.version)) for c in candidates]
        in_place = model_registry.version_with_alias(client, name, model_registry.CHAMPION)
        decision = decide(compared, _champion(client, in_place, version) if in_place else None)
        if decision.replaced is not None:
            model_registry.set_alias(client, name, model_registry.PREVIOUS, decision.replaced)
        if decision.challenger is not None:
            model_registry.set_alias(client, name, model_registry.CHALLENGER, decision.challenger)
        model_registry.set_alias(client, name, model_registry.CHAMPION, decision.champion)
        best = str(best_of(compared).version)
        client.set_model_version_tag(name, best, "cifar.decision", json.dumps(decision.as_dict()))
        client.log_dict(data.parent_run_id, decision.as_dict(), "promotion.json")
    for reason in decision.reasons:
        _log.info("%s", reason)
    return Promotion(
        candidates=candidates,
        champion=decision.champion,
        replaced=decision.replaced,
        challenger=decision.challenger,
        reasons=list(decision.reasons),
        mlflow_url=data.mlflow_url,
    )


def _candidate(version: "ModelVersion") -> Candidate:
    """Raises `IntegrityError` for a version that was registered by hand."""
    model_registry.saved_model_of(version)
    tags = version.tags
    try:
        return Candidate(
            version=int(version.version),
            model=tags[MODEL],
            test_accuracy=float(tags["cifar.test_accuracy"]),
            dataset=tags[DATASET],
            classes=model_registry.class_names(version),
            parameters=int(tags["cifar.parameters"]),
            placeholder=tags.get("cifar.placeholder") == "true",
        )
    except (KeyError, ValueError) as error:
        raise IntegrityError(
            f"version {version.version} of {version.name} has no usable tag {error}: somebody has changed its tags."
        ) from error


def _champion(client: "MlflowClient", in_place: "ModelVersion", data: DatasetVersion) -> Candidate | Unscored:
    """The champion as it scores on this run's test images: scored again when its own were others."""
    number = int(in_place.version)
    try:
        champion = _candidate(in_place)
    except IntegrityError as error:
        return Unscored(number, str(error), gone=False)
    saved = model_registry.saved_model_of(in_place)
    if not is_stored(client, saved):
        return Unscored(number, f"its stored model {saved.uri} was deleted.", gone=True)
    if champion.dataset == data.digest or champion.classes != data.classes:
        return champion
    size = int(in_place.tags.get("cifar.image_size", 32))  # models from before sizes took 32 pixels
    try:
        accuracy = _test_accuracy(saved, size, data)
    except IntegrityError as error:
        return Unscored(number, str(error), gone=True)
    _log.info("champion version %d scores %.2f %% on these test images", champion.version, 100 * accuracy)
    return replace(champion, test_accuracy=accuracy, dataset=data.digest)


def _test_accuracy(saved: SavedModel, size: int, version: DatasetVersion) -> float:
    """Of a model that was saved for another dataset version, on the test images of this one in the model's size."""
    # Loads torch, and is seldom needed.
    from cifar_tasks.tracking.saved_model import load_model
    from cifar_tasks.training.device import choose_device
    from cifar_tasks.training.logits import predict_logits, resized

    settings = Settings()
    test = load_split(S3Store(settings.bucket), version, "test", settings.home / "cache")
    images = resized(test.images, size)
    predicted = predict_logits(load_model(saved, choose_device()), images).argmax(axis=1)
    return float((predicted == test.labels).mean())
