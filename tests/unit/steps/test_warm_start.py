"""A warm start: the champion's weights, verified, for the same model with the same classes; else the recipe."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cifar_tasks.config import Overrides, with_values
from cifar_tasks.data.images import ImageStream, Report
from cifar_tasks.data.versions import load_version
from cifar_tasks.errors import IntegrityError
from cifar_tasks.models import get_model
from cifar_tasks.steps.create_studies import create_studies
from cifar_tasks.steps.inputs import initial_model, load_training_images
from cifar_tasks.steps.payloads import TrainPlan
from cifar_tasks.steps.plan import plan_training
from cifar_tasks.steps.register import tuned_tags
from cifar_tasks.steps.run_trials import run_trials
from cifar_tasks.steps.select_params import select_params
from cifar_tasks.steps.train import train_model, training_digest
from cifar_tasks.tracking import model_registry
from cifar_tasks.tracking.runs import INITIAL_WEIGHTS, MODEL, START_FROM
from cifar_tasks.tracking.saved_model import PROGRAM, load_model
from cifar_tasks.tuning.space import free_space
from cifar_tasks.tuning.study import load_study
from tests.unit.data.sources import NoiseSource
from tests.unit.steps.conftest import SMALL, Services


class OtherClasses(NoiseSource):
    def read(self, report: Report) -> ImageStream:
        return replace(super().read(report), classes=("ant", "cat"))


SHORT = Overrides(epochs=1, batch_size=8)


@pytest.fixture
def champion(services: Services) -> TrainPlan:
    """Trained by the recipe."""
    return crown(services)


def crown(services: Services, **changes: object) -> TrainPlan:
    """Trained with `changes` of the recipe, registered as the champion, version 1; returns its plan."""
    data = services.prepared(overrides=SHORT)
    (plan,) = plan_training(data)
    plan = plan.model_copy(update={"config": with_values(plan.config, {**SMALL, **changes})})
    trained = train_model(plan)
    assert trained.initial_weights == "random"
    version = load_version(services.store, data.dataset_uri)
    tags = {MODEL: "cnn", **model_registry.class_tags(version.classes)}
    name = data.request.registered_model
    number = model_registry.register(services.client, name, trained.saved, trained.run_id, tags)
    services.client.set_registered_model_alias(name, "champion", str(number))
    return plan


def warm(services: Services, *models: str, **request: object) -> list[TrainPlan]:
    fields = {"models": list(models or ["cnn"]), "start_from": "champion", "overrides": SHORT, **request}
    return plan_training(services.prepared(**fields))


def test_a_training_starts_from_the_champion_s_weights_and_says_so(services, champion):
    (plan,) = warm(services)
    assert plan.start is not None
    images = load_training_images(plan.data.dataset_uri, plan.config)
    model, config, weights = initial_model(plan.config, images, plan.start)
    stored = load_model(plan.start.saved).state_dict()
    assert model.state_dict().keys() == stored.keys()
    assert all(torch.equal(value, stored[name]) for name, value in model.state_dict().items())
    assert (weights, config.transfer.head_epochs) == (f"version 1 (SHA-256 {plan.start.saved.sha256})", 0)

    small = with_values(plan.config, SMALL)
    trained = train_model(plan.model_copy(update={"config": small}))
    tags = services.client.get_run(trained.run_id).data.tags
    assert (tags[START_FROM], tags[INITIAL_WEIGHTS], trained.initial_weights) == ("champion", weights, weights)


def test_the_start_belongs_to_the_identity_of_a_training(services, champion):
    (plan,) = warm(services)
    version = load_version(services.store, plan.data.dataset_uri)
    assert training_digest(plan.config, version, plan.start) != training_digest(plan.config, version)


@pytest.mark.parametrize(
    ("models", "source", "reason"),
    [
        (["resnet50"], NoiseSource(), "the champion, version 1, is another model (cnn)"),
        (["cnn"], OtherClasses(name="others"), "the champion, version 1, has other classes"),
    ],
)
def test_another_model_and_other_classes_start_from_the_recipe_with_the_reason(
    services, champion, caplog, models, source, reason
):
    (plan,) = warm(services, *models, source=source)
    assert plan.start is None
    assert caplog.messages == [f"{models[0]} does not start from the champion but from the recipe: {reason}"]


def test_without_a_champion_or_its_stored_model_a_training_starts_from_the_recipe(services, champion, caplog):
    (plan,) = warm(services, registered_model="nobody")
    assert plan.start is None
    (plan,) = warm(services)
    program_of(services, plan).unlink()
    (plan,) = warm(services)
    assert plan.start is None
    assert [line.partition("recipe: ")[2] for line in caplog.messages if "recipe: " in line] == [
        "nobody has no champion",
        "the stored model of the champion, version 1 was deleted",
    ]


def test_weights_of_another_size_are_not_used_and_leave_the_model_as_the_recipe_makes_it(services, champion, caplog):
    (plan,) = warm(services)
    images, wider = load_training_images(plan.data.dataset_uri, plan.config), {"hidden_units": 32}
    config = with_values(get_model("cnn").config("demo"), wider)
    model, _, weights = initial_model(config, images, plan.start)
    fresh, _, _ = initial_model(config, images)
    assert weights == "random"
    assert all(torch.equal(value, fresh.state_dict()[name]) for name, value in model.state_dict().items())
    assert "version 1 has layers of another size: network." in caplog.text


def test_weights_that_were_altered_are_refused_before_they_are_opened(services, champion):
    (plan,) = warm(services)
    program = program_of(services, plan)
    program.write_bytes(program.read_bytes() + b"\0")
    with pytest.raises(IntegrityError, match="is damaged: SHA-256"):
        initial_model(plan.config, load_training_images(plan.data.dataset_uri, plan.config), plan.start)


@pytest.mark.parametrize("hidden_units", [0, 18])
def test_the_trials_and_the_training_of_a_search_start_from_the_champion_s_weights(services, hidden_units):
    # given
    crown(services, hidden_units=hidden_units)
    plans = warm(services, tune=["cnn"], search_workers=1, trials=2)
    (worker,) = create_studies(plans)
    worker = worker.model_copy(update={"trial_config": with_values(worker.trial_config, SMALL)})
    # when
    (plan,) = select_params(plans, [run_trials(worker)])
    # then
    wanted = f"version 1 (SHA-256 {plan.start.saved.sha256})"
    trials = load_study(worker.study).trials
    tried = [services.client.get_run(trial.user_attrs["mlflow_run_id"]) for trial in trials]
    assert [run.data.params["initial_weights"] for run in tried] == [wanted] * 2
    assert trials[0].system_attrs["fixed_params"] == trials[0].params  # nothing is queued that is not searched
    assert initial_model(plan.config, load_training_images(plan.data.dataset_uri, plan.config), plan.start)[2] == wanted
    # and a later training from the recipe's weights reuses all values that this one had
    kept = json.loads(tuned_tags(plan)["cifar.tuned_params"])
    assert kept.keys() == free_space(plan.config).keys()
    assert kept["hidden_units"] == hidden_units


def test_a_champion_whose_run_was_deleted_leaves_the_recipe_s_shape(services):
    crown(services, hidden_units=18)
    (before,) = warm(services, tune=["cnn"])
    number = before.start.version
    run = services.client.get_model_version(before.data.request.registered_model, str(number)).run_id
    services.client.delete_run(run)
    (plan,) = warm(services, tune=["cnn"])
    assert (before.config.hidden_units, plan.config.hidden_units) == (18, 0)


def program_of(services: Services, plan: TrainPlan) -> Path:
    assert plan.start is not None
    folder = services.client.get_logged_model(plan.start.saved.model_id).artifact_location
    return Path(folder.removeprefix("file://"), PROGRAM)
