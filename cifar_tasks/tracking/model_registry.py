"""The MLflow registry: one version per training run, and the aliases `champion`, `challenger` and `previous`."""

import json
from collections.abc import Collection, Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any

from cifar_tasks.errors import ConfigError, IntegrityError, nearest
from cifar_tasks.tracking.saved_model import DIGEST_TAG, SavedModel
from cifar_tasks.tracking.server import DATABASE_ERROR

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
CLASSES, TUNED_PARAMS = "cifar.classes", "cifar.tuned_params"
MAX_TAG = 100_000
"""Characters that MLflow keeps in a tag of a version."""


def register(client: "MlflowClient", name: str, saved: SavedModel, run_id: str, tags: Mapping[str, Any]) -> int:
    """The version of this run: the one that an earlier try registered, else a new one."""
    _ensure_model(client, name)
    wanted = {key: str(value) for key, value in {**tags, DIGEST_TAG: saved.sha256}.items()}
    found = client.search_model_versions(f"name = '{name}' AND run_id = '{run_id}'")
    if found:
        version = found[0]
    else:  # with its tags in one request
        version = client.create_model_version(
            name, source=saved.uri, run_id=run_id, model_id=saved.model_id, tags=wanted, await_creation_for=0
        )
    for key, value in wanted.items() - dict(version.tags).items():
        set_tag(client, name, key, value, version.version)
    return int(version.version)


def version_with_alias(client: "MlflowClient", name: str, alias: str) -> "ModelVersion | None":
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode

    try:
        return client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        # An alias that is not set gives INVALID_PARAMETER_VALUE, a model that is not registered DOES_NOT_EXIST.
        if error.error_code in (ErrorCode.Name(RESOURCE_DOES_NOT_EXIST), "INVALID_PARAMETER_VALUE"):
            return None
        raise


def registered_model(client: "MlflowClient", name: str) -> "RegisteredModel":
    """`ConfigError` with the nearest names if there is none, so that a misspelled one is not taken for a new one."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        known = nearest(name, [model.name for model in client.search_registered_models(max_results=1000)])
        raise ConfigError(
            f"there is no registered model {name} in MLflow{known}. A training makes it: `make demo` or `cifar run`."
        ) from None


def best_tuned(client: "MlflowClient", name: str, tags: Mapping[str, str]) -> "ModelVersion | None":
    """Of the versions with these tags that a search led to, the one with the best validation accuracy."""
    wanted = " AND ".join([f"name = '{name}'", *(f"tags.`{key}` = '{value}'" for key, value in tags.items())])
    # A person may delete or change tags.
    found = [
        version
        for version in client.search_model_versions(wanted)
        if "cifar.params_source" in version.tags and tuned_params(version) is not None
    ]
    measured = [(number_in(version.tags, "cifar.validation_accuracy"), version) for version in found]
    known = [(accuracy, version) for accuracy, version in measured if accuracy is not None]
    return max(known, key=lambda each: each[0])[1] if known else None


def reused_params(
    client: "MlflowClient", name: str, tags: Mapping[str, str], fixed: Collection[str]
) -> "tuple[dict[str, Any], ModelVersion] | None":
    """Hyperparameters of the best version with these tags that a search led to, but those in `fixed`; none if there is
    no such version."""
    if (known := best_tuned(client, name, tags)) is None:
        return None
    return {key: value for key, value in (tuned_params(known) or {}).items() if key not in fixed}, known


def tuned_params(version: "ModelVersion") -> dict[str, Any] | None:
    """Hyperparameters that a search led to; none if the tag is missing, or if somebody has changed it to no JSON."""
    try:
        found = json.loads(version.tags[TUNED_PARAMS])
    except (KeyError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def get_version(client: "MlflowClient", name: str, version: int) -> "ModelVersion":
    """Raises `ConfigError` if a person has deleted the version, or deleted or renamed its registered model."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version(name, str(version))
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise ConfigError(
            f"there is no version {version} of {name} in MLflow: give another number. If it was deleted or renamed "
            "before its promotion, clear the task register or start a new run."
        ) from error


def set_tag(client: "MlflowClient", name: str, key: str, value: str, version: int | str | None = None) -> None:
    """Of a version, or of the registered model itself.

    MLflow inserts a tag that is not there yet. Of two processes that set it at once it refuses the slower one, whose
    second try replaces the value.
    """
    from mlflow.exceptions import MlflowException

    def try_once() -> None:
        if version is None:
            client.set_registered_model_tag(name, key, value)
        else:
            client.set_model_version_tag(name, str(version), key, value)

    try:
        try_once()
    except MlflowException as error:
        if DATABASE_ERROR not in str(error):
            raise
        try_once()


def class_tags(classes: Sequence[str]) -> dict[str, str]:
    """The tag that names the classes of a version; without one, their names are too long for it."""
    names = json.dumps(classes)
    return {CLASSES: names} if len(names) <= MAX_TAG else {}


def number_in(tags: Mapping[str, str], tag: str) -> float | None:
    """None if the tag is missing, or if somebody has changed it to what is no finite number."""
    try:
        number = float(tags[tag])
    except (KeyError, ValueError):
        return None
    return number if isfinite(number) else None


def class_names(version: "ModelVersion") -> tuple[str, ...]:
    """In the order of the logits."""
    if CLASSES in version.tags:
        try:
            names = json.loads(version.tags[CLASSES])
        except ValueError:
            names = None
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise IntegrityError(
                f"the tag {CLASSES} of version {version.version} of {version.name} is not a list of names: "
                "somebody has changed its tags."
            )
        return tuple(names)
    saved_model_of(version)  # refuses a version that was registered by hand, whose model may be of another kind
    from mlflow.models import get_model_info

    metadata = get_model_info(str(version.source)).metadata or {}
    if "classes" not in metadata:
        raise IntegrityError(
            f"version {version.version} of {version.name} does not name its classes: it was not registered by this "
            "pipeline. Set the alias to a version that was."
        )
    return tuple(metadata["classes"])


def saved_model_of(version: "ModelVersion") -> SavedModel:
    """Where the model of a version lies, and the digest it was registered with."""
    if DIGEST_TAG not in version.tags:
        raise IntegrityError(
            f"version {version.version} of {version.name} carries no {DIGEST_TAG} tag: it was not registered by this "
            "pipeline. Set the alias to a version that was."
        )
    return SavedModel(str(version.source), version.tags[DIGEST_TAG])


def _ensure_model(client: "MlflowClient", name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name, description="Image classifiers of the training pipeline.")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
