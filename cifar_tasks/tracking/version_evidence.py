"""What a decision needs to know of two registered versions: their evaluations on the candidate's test images, compared.

Stored evaluations are used; a model that was not evaluated on these images is evaluated now, which loads torch.
"""

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cifar_tasks.data.loading import load_split
from cifar_tasks.data.versions import DatasetVersion, load_version
from cifar_tasks.errors import ConfigError, IntegrityError
from cifar_tasks.evaluation.comparison import Comparison, compare
from cifar_tasks.promotion.evidence import Champion, Scored, Unscored
from cifar_tasks.settings import Settings
from cifar_tasks.storage.s3 import S3Store
from cifar_tasks.tracking import model_registry
from cifar_tasks.tracking.evaluations import (
    StoredEvaluation,
    ensure_evaluated,
    read_evaluation,
    read_labels,
    read_probabilities,
)
from cifar_tasks.tracking.runs import INITIAL_WEIGHTS, MODEL
from cifar_tasks.tracking.saved_model import is_stored, verify_model

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

_log = logging.getLogger(__name__)

TEST_SET = "cifar.test_set"
"""Tag of a version: digest of the test images that it was evaluated on when it was registered."""


@dataclass(frozen=True)
class Evidence:
    candidate: Scored
    champion: Champion
    comparison: Comparison | None
    """None without a champion, or with one that cannot be compared."""
    evaluations: tuple[StoredEvaluation, StoredEvaluation | None]
    """Of the candidate, and of the champion if they are compared."""


def gather_evidence(
    client: "MlflowClient", store: S3Store, name: str, candidate: int, champion: int | None, confidence: float
) -> Evidence:
    """Of a candidate, and of the champion if there is one.

    Raises `IntegrityError` if the candidate's files are not those that were registered. What is wrong with a champion
    is part of the evidence.
    """
    version = model_registry.get_version(client, name, candidate)
    verify_version(client, version)
    data = load_version(store, tag(version, "cifar.dataset_uri"))
    evaluation = evaluate_version(store, version, data)
    scored = score_version(version, evaluation)
    if champion is None or champion == candidate:
        return Evidence(scored, scored if champion else None, None, (evaluation, None))
    other = _champion(client, store, name, champion, data)
    if isinstance(other, Unscored):
        return Evidence(scored, other, None, (evaluation, None))
    of_champion = score_version(*other)
    if of_champion.classes != scored.classes:
        return Evidence(scored, of_champion, None, (evaluation, None))
    comparison = compare_evaluations(store, evaluation, other[1], confidence)
    return Evidence(scored, of_champion, comparison, (evaluation, other[1]))


def compare_evaluations(
    store: S3Store, candidate: StoredEvaluation, champion: StoredEvaluation, confidence: float
) -> Comparison:
    """Two models on the same test images, from their stored probabilities."""
    return compare(
        read_probabilities(store, candidate),
        read_probabilities(store, champion),
        read_labels(store, candidate),
        candidate.test_set.classes,
        confidence=confidence,
    )


def verify_version(client: "MlflowClient", version: "ModelVersion") -> None:
    """`IntegrityError` if the stored model is not the one that was registered, or was deleted."""
    saved = model_registry.saved_model_of(version)
    if not is_stored(client, saved):
        raise IntegrityError(f"the stored model {saved.uri} of version {version.version} was deleted. Train again.")
    verify_model(saved)


def evaluate_version(store: S3Store, version: "ModelVersion", data: DatasetVersion) -> StoredEvaluation:
    """On the test images of a dataset version, in the size of the model."""
    size = int(version.tags.get("cifar.image_size", 32))  # models from before sizes took 32 pixels
    saved = model_registry.saved_model_of(version)
    return ensure_evaluated(store, saved, data, Settings().home / "cache", image_size=size)


def common_evaluations(store: S3Store, versions: "list[ModelVersion]") -> tuple[StoredEvaluation, StoredEvaluation]:
    """Of both versions on the same test images: those of the first version, else those of the second."""
    first, second = versions
    models = [model_registry.saved_model_of(version).sha256 for version in versions]
    evaluated = [version for version in versions if version.tags.get(TEST_SET)]
    for version in evaluated:
        found = [read_evaluation(store, version.tags[TEST_SET], model) for model in models]
        if found[0] and found[1]:
            return found[0], found[1]
    named = [version for version in versions if model_registry.CLASSES in version.tags]
    if len({model_registry.class_names(version) for version in named}) > 1:
        raise ConfigError(
            f"versions {first.version} and {second.version} of {first.name} know different classes and cannot be "
            "compared. Register models for other classes under another name (form field, or CIFAR_REGISTERED_MODEL)."
        )
    missing = [version.version for version in versions if version not in evaluated]
    if missing:
        raise ConfigError(
            f"version {missing[0]} of {first.name} was registered without an evaluation. Start the DAG "
            f"cifar10_promotion with version {missing[0]} and mode never, which evaluates it."
        )
    raise ConfigError(
        f"versions {first.version} and {second.version} of {first.name} were evaluated on different test images. If "
        "one of them is the champion, start the DAG cifar10_promotion with the other one and mode never: it evaluates "
        "the champion on its images. Else train one of them again on the data of the other one."
    )


def tag(version: "ModelVersion", name: str) -> str:
    """`IntegrityError` if a person has deleted it."""
    if name not in version.tags:
        raise IntegrityError(
            f"version {version.version} of {version.name} has no tag {name}: somebody has changed its tags."
        )
    return str(version.tags[name])


def score_version(version: "ModelVersion", evaluation: StoredEvaluation) -> Scored:
    return Scored(
        version=int(version.version),
        model=tag(version, MODEL),
        accuracy=evaluation.accuracy,
        calibration_error=evaluation.calibration.expected_error,
        latency_ms=evaluation.latency.single_ms,
        size_mb=evaluation.size_mb,
        classes=evaluation.test_set.classes,
        placeholder=version.tags.get("cifar.placeholder") == "true",
        initial_weights=version.tags.get(INITIAL_WEIGHTS, ""),
        test_set=evaluation.test_set.digest,
    )


def _champion(
    client: "MlflowClient", store: S3Store, name: str, number: int, data: DatasetVersion
) -> "tuple[ModelVersion, StoredEvaluation] | Unscored":
    """Evaluated on the candidate's test images if it has the same classes, else on its own."""
    try:
        version = model_registry.get_version(client, name, number)
    except ConfigError:
        return Unscored(version=number, reason="it was deleted in MLflow.", gone=True)
    try:
        classes, uri = model_registry.class_names(version), tag(version, "cifar.dataset_uri")
        tag(version, MODEL)
        saved = model_registry.saved_model_of(version)
    except IntegrityError as error:
        return Unscored(version=number, reason=str(error), gone=False)
    if not is_stored(client, saved):
        return Unscored(version=number, reason=f"its stored model {saved.uri} was deleted.", gone=True)
    try:
        verify_model(saved)
    except IntegrityError as error:
        return Unscored(version=number, reason=str(error), gone=True)
    try:
        images = data if classes == data.classes else load_version(store, uri)
        evaluation = evaluate_version(store, version, images)
        _keep_figures(client, store, version, evaluation, images)
        return version, evaluation
    except (IntegrityError, ConfigError) as error:  # test images are damaged, or its dataset version was deleted
        return Unscored(version=number, reason=str(error), gone=False)


def _keep_figures(
    client: "MlflowClient", store: S3Store, version: "ModelVersion", evaluation: StoredEvaluation, data: DatasetVersion
) -> None:
    """In the MLflow run of the training, once: those of the task `evaluate` are of other test images."""
    from mlflow.exceptions import MlflowException

    from cifar_tasks.tracking.evaluation_figures import FOLDER, LAST, log_figures

    digest, run_id = evaluation.test_set.digest, version.run_id
    if version.tags.get(TEST_SET) == digest or not run_id:
        return
    folder = f"{FOLDER}-{digest[:16]}"
    try:
        if any(file.path.endswith(LAST) for file in client.list_artifacts(run_id, folder)):
            return
        test = load_split(store, data, "test", Settings().home / "cache")
        probabilities = read_probabilities(store, evaluation)
        log_figures(client, run_id, evaluation, test, probabilities, model=tag(version, MODEL), folder=folder)
    except MlflowException as error:  # a deleted run; the decision needs no figures
        _log.warning("the figures of version %s on these test images are not kept: %s", version.version, error)
