"""What counts as trained before: data, configuration and code of all models of one run that came to its report."""

import json
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from cifar_tasks.config import TrainConfig, with_values
from cifar_tasks.models import get_model
from cifar_tasks.tracking import model_registry
from cifar_tasks.tracking.decisions import DECISION
from cifar_tasks.tracking.provenance import code_digest
from cifar_tasks.tracking.runs import DATASET, MODEL, START_FROM, WORKFLOW
from cifar_tasks.tracking.saved_model import SavedModel
from cifar_tasks.tracking.trained_before import (
    CODE,
    CONFIG,
    TRAININGS,
    config_digest,
    describe_trained,
    find_in_training,
    find_trained,
    training_keys,
)

CNN, RESNET = get_model("cnn").config("demo"), get_model("resnet50").config("demo")
DATA = "d" * 64


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return request.node.name


@pytest.fixture
def trained(default_client: MlflowClient, name: str):
    """A function that registers what a workflow run has trained."""

    def register(workflow: str, *configs: TrainConfig, status: str = "FINISHED", **tags: Any) -> list[int]:
        parent = default_client.create_run("0").info.run_id
        numbers = []
        for config in configs:
            run = default_client.create_run("0", tags={"mlflow.parentRunId": parent}).info.run_id
            model = default_client.create_logged_model("0", name="model", source_run_id=run)
            all_tags = {WORKFLOW: workflow, MODEL: config.model, DATASET: DATA, CODE: code_digest()}
            all_tags |= {CONFIG: config_digest(config), **tags}
            saved = SavedModel(f"models:/{model.model_id}", "abc")
            numbers.append(model_registry.register(default_client, name, saved, run, all_tags))
        default_client.set_terminated(parent, status)
        return numbers

    return register


def found(client: MlflowClient, name: str, *configs: TrainConfig) -> list[int]:
    return [int(version.version) for version in find_trained(client, name, DATA, configs)]


def test_nothing_is_trained_before_the_first_run(default_client, name):
    assert found(default_client, name, CNN) == []


def test_the_newest_run_that_trained_all_models_is_found(default_client, name, trained):
    trained("first", CNN, RESNET)
    trained("second", CNN, RESNET)
    trained("third", CNN)
    assert found(default_client, name, CNN, RESNET) == [3, 4]
    assert found(default_client, name, CNN) == [5]


def test_a_run_that_did_without_a_model_has_trained_the_others(default_client, name, trained):
    trained("first", CNN)

    def found_without(*models: str) -> list[ModelVersion]:
        skipped = {("first", model) for model in models}
        was_skipped = lambda workflow, model: (workflow, model) in skipped  # noqa: E731
        return find_trained(default_client, name, DATA, [CNN, RESNET], was_skipped=was_skipped)

    assert found_without() == []
    assert [int(version.version) for version in found_without("resnet50")] == [1]
    assert find_trained(default_client, name, DATA, [RESNET], was_skipped=lambda *_: True) == []


def test_models_of_two_runs_are_not_one_run(default_client, name, trained):
    trained("first", CNN)
    trained("second", RESNET)
    assert found(default_client, name, CNN, RESNET) == []


@pytest.mark.parametrize("tags", [{DATASET: "e" * 64}, {CODE: "other"}, {CONFIG: "other"}])
def test_other_data_another_configuration_and_other_code_are_not_the_same(default_client, name, trained, tags):
    trained("first", CNN, **tags)
    assert found(default_client, name, CNN) == []


def test_another_seed_is_another_configuration(default_client, name, trained):
    trained("first", CNN)
    assert found(default_client, name, with_values(CNN, {"seed": 1})) == []


def test_a_start_from_the_champion_and_one_from_the_recipe_are_not_the_same(default_client, name, trained):
    trained("first", CNN)  # from before warm starts: without a tag
    trained("second", CNN, **{START_FROM: "champion"})
    starts = [find_trained(default_client, name, DATA, [CNN], start)[0].version for start in ("recipe", "champion")]
    assert [int(number) for number in starts] == [1, 2]


@pytest.mark.parametrize("status", ["FAILED", "KILLED", "RUNNING"])
def test_a_run_that_did_not_come_to_its_report_does_not_count(default_client, name, trained, status):
    trained("first", CNN, status=status)
    assert found(default_client, name, CNN) == []


def test_a_deleted_version_or_run_does_not_count(default_client, name, trained):
    trained("first", CNN)
    trained("second", CNN)
    default_client.delete_model_version(name, "2")
    assert found(default_client, name, CNN) == [1]
    default_client.delete_run(default_client.get_model_version(name, "1").run_id)
    assert found(default_client, name, CNN) == []


def test_the_reason_names_the_versions_and_what_was_decided(default_client, name, trained):
    trained("first", CNN)
    trained("second", CNN, RESNET)
    same = f"of {name}: same dataset version, configuration and code"

    def reason(*configs: TrainConfig) -> str:
        return describe_trained(default_client, name, find_trained(default_client, name, DATA, configs))

    assert reason(CNN) == f"version 2 (cnn) {same}; not decided yet, the champion is none"
    default_client.set_registered_model_alias(name, "champion", "1")
    default_client.set_model_version_tag(name, "2", DECISION, json.dumps({"action": "keep"}))
    both = f"version 2 (cnn), version 3 (resnet50) {same}"
    assert reason(CNN, RESNET) == f"{both}; decision keep, the champion is version 1"
    default_client.set_registered_model_alias(name, "champion", "2")
    assert reason(CNN, RESNET) == f"{both}; version 2 is the champion"


def test_the_digest_of_a_configuration_covers_all_its_values():
    assert config_digest(CNN) == config_digest(get_model("cnn").config("demo"))
    assert len({config_digest(with_values(CNN, {name: 7})) for name in ("epochs", "seed", "crop_padding")}) == 3


def test_a_run_that_trains_all_of_it_now_is_found_and_no_other_one(default_client, name):
    experiment = default_client.create_experiment(name)
    both, cnn, resnet = (training_keys(name, DATA, c, "recipe") for c in ([CNN, RESNET], [CNN], [RESNET]))
    assert both == cnn | resnet
    tags = {MODEL: "all", WORKFLOW: "first", TRAININGS: " ".join(both)}
    run = default_client.create_run(experiment, tags=tags).info.run_id
    default_client.create_run(experiment, tags={MODEL: "all", WORKFLOW: "tunes"})
    default_client.create_run(experiment, tags={MODEL: "cnn", WORKFLOW: "child", TRAININGS: " ".join(both)})

    def found(keys: set[str], workflow: str = "second") -> str | None:
        return find_in_training(default_client, experiment, keys, workflow)

    assert found(both) == found(cnn) == found(resnet) == "first"
    assert found(both, "earlier") == "first"
    assert found(both, "first") is None, "itself"
    others = [(DATA, [CNN], "champion"), ("e" * 64, [CNN], "recipe"), (DATA, [with_values(CNN, {"seed": 1})], "recipe")]
    assert [found(training_keys(name, *other)) for other in others] == [None] * 3
    assert found(training_keys("another model", DATA, [CNN], "recipe")) is None
    default_client.set_terminated(run, "FAILED")
    assert found(both) is None
