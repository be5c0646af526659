"""Registration, and which version answers from now on."""

import json
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cifar_tasks.data import DatasetVersion, load_version
from cifar_tasks.promotion import Contender, best_of, decide
from cifar_tasks.settings import Settings
from cifar_tasks.storage.s3 import S3Store
from cifar_tasks.tracking import registry, runs
from cifar_tasks.tracking.runs import DATASET, MODEL
from cifar_tasks.tracking.saved_model import SavedModel

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

Json = dict[str, Any]

_log = logging.getLogger(__name__)


def register_model(evaluated: Json, data: Json, name: str) -> Json:
    """A version of the registered model `name` for this training run; adds `version` and `registered_model`."""
    client, version = runs.connect(), load_version(S3Store(Settings().bucket), data["uri"])
    tags = {
        MODEL: evaluated["model"],
        DATASET: version.digest,
        "cifar.dataset_uri": version.uri,
        "cifar.classes": json.dumps(version.classes),
        "cifar.placeholder": str(version.placeholder).lower(),
        "cifar.image_size": version.image_size,
        "cifar.resize": version.resize,
        "cifar.config_sha256": evaluated["config_sha256"],
        "cifar.code_sha256": evaluated["code_sha256"],
        "cifar.parameters": evaluated["parameters"],
        "cifar.validation_accuracy": evaluated["validation_accuracy"],
        "cifar.test_accuracy": evaluated["test_accuracy"],
        **{name: value for name, value in runs.origin_tags(evaluated["origin"]).items() if value is not None},
    }
    saved = SavedModel(evaluated["model_uri"], evaluated["model_sha256"])
    with runs.tracking_errors():
        number = registry.register(client, name, saved, evaluated["run_id"], tags)
    _log.info("registered as version %d of %s", number, name)
    return {**evaluated, "version": number, "registered_model": name}


def promote(candidates: list[Json], data: Json, name: str) -> Json:
    """Point `champion` to the better model, if it beats the one in place; returns the decision with its reasons.

    The decision is kept with the parent run and with the winning version.
    """
    client, version = runs.connect(), load_version(S3Store(Settings().bucket), data["uri"])
    with runs.tracking_errors():
        contenders = [_contender(client.get_model_version(name, str(c["version"]))) for c in candidates]
        in_place = registry.version_with_alias(client, name, registry.CHAMPION)
        decision = decide(contenders, _champion(in_place, version) if in_place else None)
        if decision.replaced is not None:
            registry.point(client, name, registry.PREVIOUS, decision.replaced)
        if decision.challenger is not None:
            registry.point(client, name, registry.CHALLENGER, decision.challenger)
        registry.point(client, name, registry.CHAMPION, decision.champion)
        kept = json.dumps(decision.as_dict())
        client.set_model_version_tag(name, str(best_of(contenders).version), "cifar.decision", kept)
        client.log_dict(data["parent_run_id"], decision.as_dict(), "promotion.json")
    for reason in decision.reasons:
        _log.info("%s", reason)
    return {**decision.as_dict(), "registered_model": name}


def _contender(version: "ModelVersion") -> Contender:
    tags = version.tags
    return Contender(
        version=int(version.version),
        model=tags[MODEL],
        test_accuracy=float(tags["cifar.test_accuracy"]),
        dataset=tags[DATASET],
        classes=tuple(json.loads(tags["cifar.classes"])),
        parameters=int(tags["cifar.parameters"]),
        placeholder=tags.get("cifar.placeholder") == "true",
    )


def _champion(in_place: "ModelVersion", data: DatasetVersion) -> Contender:
    """The champion as it scores on this run's test images: measured anew when its own were others."""
    champion = _contender(in_place)
    if champion.dataset == data.digest or champion.classes != data.classes:
        return champion
    from cifar_tasks.steps.evaluate import test_accuracy  # loads torch, and is seldom needed

    accuracy = test_accuracy(registry.saved_model_of(in_place), data)
    _log.info("champion version %d scores %.2f %% on these test images", champion.version, 100 * accuracy)
    return replace(champion, test_accuracy=accuracy, dataset=data.digest)
