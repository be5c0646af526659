"""What was trained before: a run that would train the same again is skipped."""

import json
from collections import defaultdict
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from cifar_tasks.config import StartFrom, TrainConfig, flat
from cifar_tasks.storage.s3 import canonical_json, sha256_hex
from cifar_tasks.tracking import model_registry
from cifar_tasks.tracking.decisions import DECISION, parent_run
from cifar_tasks.tracking.provenance import code_digest
from cifar_tasks.tracking.runs import DATASET, MODEL, START_FROM, WORKFLOW

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CONFIG, CODE = "cifar.config_sha256", "cifar.code_sha256"
"""Tags of a version: digests of the configuration and of the code that it was trained with."""
TRAININGS = "cifar.trainings"
"""Tag of the parent run: what it trains, so that no other run trains the same at the same time."""


def config_digest(config: TrainConfig) -> str:
    return sha256_hex(canonical_json(flat(config)))


def find_trained(
    client: "MlflowClient",
    name: str,
    dataset: str,
    configs: Collection[TrainConfig],
    start_from: StartFrom = "recipe",
    was_skipped: Callable[[str, str], bool] = lambda *_: False,
) -> "list[ModelVersion]":
    """A version of each configuration, all from the newest run that trained them all and came to its report.

    Empty if there is no such run. `dataset` is the digest of the dataset version. Deleted versions do not count.
    `was_skipped`: whether a workflow run did without a model, whose weights are not available.
    """
    tags = {DATASET: dataset, CODE: code_digest()}
    wanted = " AND ".join([f"name = '{name}'", *(f"tags.`{key}` = '{value}'" for key, value in tags.items())])
    by_run = defaultdict[str, dict[str, "ModelVersion"]](dict)
    for version in sorted(client.search_model_versions(wanted), key=lambda found: -int(found.version)):
        # Which champion a training started from does not count: each run would start from the last one's model.
        if version.tags.get(START_FROM, "recipe") != start_from:
            continue
        by_run[version.tags.get(WORKFLOW, "")][version.tags.get(CONFIG, "")] = version
    for workflow, versions in by_run.items():
        found = {config.model: versions.get(config_digest(config)) for config in configs}
        trained = [version for version in found.values() if version]
        if trained and all(version or was_skipped(workflow, model) for model, version in found.items()):
            parent = parent_run(client, trained[0])
            # Another run has failed before its report chose a candidate for the promotion.
            if parent is not None and parent.info.status == "FINISHED":
                return trained
    return []


def training_keys(name: str, dataset: str, configs: Collection[TrainConfig], start_from: StartFrom) -> set[str]:
    """One for each configuration: what `find_trained` compares."""
    common = [name, dataset, start_from, code_digest()]
    return {sha256_hex(canonical_json([*common, config_digest(config)]))[:16] for config in configs}


def find_in_training(client: "MlflowClient", experiment: str, keys: set[str], workflow: str) -> str | None:
    """Id of a workflow run other than `workflow` that is training all of this now."""
    running = client.search_runs([experiment], f"attributes.status = 'RUNNING' AND tags.`{MODEL}` = 'all'")
    tags = (run.data.tags for run in running)
    found = (each[WORKFLOW] for each in tags if keys <= set(each.get(TRAININGS, "").split()))
    return next((other for other in found if other != workflow), None)


def describe_trained(client: "MlflowClient", name: str, versions: "list[ModelVersion]") -> str:
    """Which versions were trained in the same way, and what was decided about them."""
    champion = model_registry.version_with_alias(client, name, model_registry.CHAMPION)
    named = ", ".join(f"version {version.version} ({version.tags[MODEL]})" for version in versions)
    trained = f"{named} of {name}: same dataset version, configuration and code"
    if champion and champion.version in {version.version for version in versions}:
        return f"{trained}; version {champion.version} is the champion"
    decided = next((version.tags[DECISION] for version in versions if DECISION in version.tags), None)
    decision = f"decision {json.loads(decided)['action']}" if decided else "not decided yet"
    return f"{trained}; {decision}, the champion is {f'version {champion.version}' if champion else 'none'}"
