"""What was trained before: a run that would train the same again is skipped."""

import json
from collections import defaultdict
from collections.abc import Iterable
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


def config_digest(config: TrainConfig) -> str:
    return sha256_hex(canonical_json(flat(config)))


def find_trained(
    client: "MlflowClient", name: str, dataset: str, configs: Iterable[TrainConfig], start_from: StartFrom = "recipe"
) -> "list[ModelVersion]":
    """A version of each configuration, all from the newest run that trained them all and came to its report.

    Empty if there is no such run. `dataset` is the digest of the dataset version. Deleted versions do not count.
    """
    tags = {DATASET: dataset, CODE: code_digest()}
    wanted = " AND ".join([f"name = '{name}'", *(f"tags.`{key}` = '{value}'" for key, value in tags.items())])
    by_run = defaultdict[str, dict[str, "ModelVersion"]](dict)
    for version in sorted(client.search_model_versions(wanted), key=lambda found: -int(found.version)):
        # Which champion a training started from does not count: each run would start from the last one's model.
        if version.tags.get(START_FROM, "recipe") != start_from:
            continue
        by_run[version.tags.get(WORKFLOW, "")][version.tags.get(CONFIG, "")] = version
    digests = [config_digest(config) for config in configs]
    for versions in by_run.values():
        if all(digest in versions for digest in digests):
            parent = parent_run(client, versions[digests[0]])
            # Another run has failed before its report chose a candidate for the promotion.
            if parent is not None and parent.info.status == "FINISHED":
                return [versions[digest] for digest in digests]
    return []


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
