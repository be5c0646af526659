"""Registration: what a version tells of where it comes from."""

import json

import pytest

from cifar_tasks.config import flat
from cifar_tasks.errors import IntegrityError
from cifar_tasks.steps.payloads import EvaluatedModel, ParamsSource
from cifar_tasks.steps.register import register_model
from cifar_tasks.tracking.airflow_links import MODELS_PAGE
from cifar_tasks.tracking.model_registry import TUNED_PARAMS
from cifar_tasks.tuning.space import free_space
from tests.promotions import registered_as
from tests.unit.steps.conftest import Services

SOURCE = ParamsSource(text="study ants, trial 3", study="ants", trial=3, params={"dropout": 0.2})


def from_a_study(evaluated: EvaluatedModel) -> EvaluatedModel:
    """The same model, as if a search had found its hyperparameters."""
    plan = evaluated.trained.plan.model_copy(update={"params_source": SOURCE})
    return evaluated.model_copy(update={"trained": evaluated.trained.model_copy(update={"plan": plan})})


def test_a_version_is_registered_once_with_its_data_and_scores(services: Services, evaluated: EvaluatedModel):
    registered = registered_as(services.client, evaluated, services.registered_model)
    assert register_model(registered.evaluated) == registered
    (version,) = services.client.search_model_versions(f"name = '{registered.name}'")
    assert (int(version.version), version.run_id) == (registered.version, registered.evaluated.trained.run_id)
    assert version.tags["cifar.dataset_uri"] == evaluated.trained.plan.data.dataset_uri
    assert float(version.tags["cifar.test_accuracy"]) == evaluated.test_accuracy
    assert (version.tags["cifar.placeholder"], version.tags["cifar.params_source"]) == ("false", "recipe")
    assert version.tags.keys().isdisjoint({TUNED_PARAMS, MODELS_PAGE})  # there is no Airflow
    assert f"Test accuracy **{evaluated.test_accuracy:.2%}**" in version.description
    assert "Hyperparameters: recipe." in version.description


def test_a_version_of_a_search_names_its_study_and_what_it_was_trained_with(services: Services, evaluated):
    registered = registered_as(services.client, from_a_study(evaluated), services.registered_model)
    version = services.client.get_model_version(registered.name, str(registered.version))
    assert (version.tags["cifar.params_source"], version.tags["cifar.study"]) == (SOURCE.text, "ants")
    config = evaluated.trained.plan.config
    assert json.loads(version.tags[TUNED_PARAMS]) == {name: flat(config)[name] for name in free_space(config)}
    assert "Hyperparameters: study ants, trial 3." in version.description


def test_a_model_whose_evaluation_was_deleted_is_not_registered(services: Services, evaluated: EvaluatedModel):
    for key in list(services.store.keys("evaluations/")):
        services.store.delete(key)
    with pytest.raises(IntegrityError, match=r"was deleted from .*Run the task evaluate again"):
        registered_as(services.client, evaluated, services.registered_model)
    assert not services.client.search_model_versions(f"name = '{services.registered_model}'")
