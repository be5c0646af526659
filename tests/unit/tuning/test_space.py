"""What is searched fits what a training takes."""

from dataclasses import fields

import optuna
import pytest
from optuna.distributions import CategoricalDistribution

from cifar_tasks.config import MODELS, TrainConfig, configure, trial_config
from cifar_tasks.tuning import SPACES, apply, recipe_parameters


@pytest.mark.parametrize("model", MODELS)
def test_every_parameter_is_a_setting_of_a_training(model):
    assert SPACES[model]().keys() <= {field.name for field in fields(TrainConfig)}


@pytest.mark.parametrize("model", MODELS)
def test_the_report_s_three_are_searched_first(model):
    assert list(SPACES[model]())[:3] == ["hidden_units", "weight_decay", "learning_rate"]


@pytest.mark.parametrize("model", MODELS)
def test_the_report_s_ranges_are_inside_of_ours(model):
    space = SPACES[model]()
    assert space["weight_decay"].low <= 3e-6 < 8e-3 <= space["weight_decay"].high
    assert space["learning_rate"].low <= 2e-5 < 4e-2 <= space["learning_rate"].high


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("profile", ["demo", "full"])
def test_the_recipe_is_a_point_of_the_space_and_stays_what_it_is(model, profile):
    recipe, space = configure(model, profile, {}), SPACES[model]()
    parameters = recipe_parameters(recipe, space)
    assert apply(recipe, parameters) == recipe
    study = optuna.create_study()
    study.enqueue_trial(parameters)
    assert study.ask(space).params == parameters


def test_a_value_outside_of_the_space_moves_to_its_edge():
    space = SPACES["cnn"]()
    outside = configure("cnn", "full", {"learning_rate": 3.0, "batch_size": 1000})
    parameters = recipe_parameters(outside, space)
    assert parameters["learning_rate"] == space["learning_rate"].high
    assert parameters["batch_size"] == 512


@pytest.mark.parametrize("model", MODELS)
def test_ten_draws_are_ten_configurations_that_a_training_accepts(model):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    base = trial_config(configure(model, "demo", {}), "demo")
    drawn = [apply(base, study.ask(SPACES[model]()).params) for _ in range(10)]
    assert len({config.digest() for config in drawn}) == 10


@pytest.mark.parametrize("model", MODELS)
def test_choices_are_numbers(model):
    for values in SPACES[model]().values():
        if isinstance(values, CategoricalDistribution):
            assert all(isinstance(choice, int) for choice in values.choices)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("profile", ["demo", "full"])
def test_a_trial_is_shorter_than_the_training_it_is_for(model, profile):
    whole = configure(model, profile, {})
    short = trial_config(whole, profile)
    assert short.train_images < (whole.train_images or 45_000)
    assert short.epochs <= whole.epochs
    assert trial_config(configure(model, profile, {"epochs": 1}), profile).epochs == 1
