"""What is searched fits what a training takes."""

import optuna
import pytest
from optuna.distributions import CategoricalDistribution

from cifar_tasks.config import Overrides, flat, trial_config, with_values
from cifar_tasks.models import available_models, get_model
from cifar_tasks.tuning.space import format_params, free_space, recipe_params, suggest

MODELS = list(available_models())


@pytest.mark.parametrize("model", MODELS)
def test_every_hyperparameter_is_a_setting_of_a_training(model):
    assert free_space(model, []).keys() <= flat(get_model(model).config("demo")).keys()


@pytest.mark.parametrize("model", ["cnn", "resnet50"])
def test_the_report_s_three_are_searched_first(model):
    assert list(free_space(model, []))[:3] == ["hidden_units", "weight_decay", "learning_rate"]


@pytest.mark.parametrize("model", ["cnn", "resnet50"])
def test_the_report_s_ranges_are_inside_of_ours(model):
    space = free_space(model, [])
    assert space["weight_decay"].low <= 3e-6 < 8e-3 <= space["weight_decay"].high
    assert space["learning_rate"].low <= 2e-5 < 4e-2 <= space["learning_rate"].high


def test_what_the_user_has_set_is_not_searched():
    space = free_space("cnn", ["batch_size", "epochs"])
    assert space.keys() == free_space("cnn", []).keys() - {"batch_size"}
    assert suggest(optuna.create_study().ask(), space).keys() == space.keys()


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("profile", ["demo", "full"])
def test_the_recipe_is_a_point_of_the_space_and_stays_what_it_is(model, profile):
    recipe, space = get_model(model).config(profile), free_space(model, [])
    params = recipe_params(recipe, space)
    assert with_values(recipe, params) == recipe
    study = optuna.create_study()
    study.enqueue_trial(params)
    assert suggest(study.ask(), space) == params


def test_a_value_outside_of_the_space_moves_to_its_edge():
    space = free_space("cnn", [])
    outside = get_model("cnn").config("full", Overrides(learning_rate=3.0, batch_size=1000))
    params = recipe_params(outside, space)
    assert params["learning_rate"] == space["learning_rate"].high
    assert params["batch_size"] == 512
    below = recipe_params(get_model("cnn").config("full", Overrides(learning_rate=1e-6)), space)
    assert below["learning_rate"] == space["learning_rate"].low


@pytest.mark.parametrize("model", MODELS)
def test_ten_draws_are_ten_configurations_within_the_bounds(model):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    base, space = trial_config(get_model(model).config("demo"), "demo"), free_space(model, [])
    trials = [study.ask() for _ in range(10)]
    configs = {with_values(base, suggest(trial, space)) for trial in trials}
    assert len(configs) == 10
    assert all(trial.distributions == space for trial in trials)


@pytest.mark.parametrize("model", MODELS)
def test_choices_are_numbers(model):
    for values in free_space(model, []).values():
        if isinstance(values, CategoricalDistribution):
            assert all(isinstance(choice, int) for choice in values.choices)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("profile", ["demo", "full"])
def test_a_trial_is_shorter_than_the_training_it_is_for(model, profile):
    whole = get_model(model).config(profile)
    short = trial_config(whole, profile)
    assert short.train_images < (whole.train_images or 45_000)
    assert short.epochs <= whole.epochs
    assert trial_config(get_model(model).config(profile, Overrides(epochs=1)), profile).epochs == 1


def test_hyperparameters_are_shown_with_three_digits():
    assert format_params({"dropout": 0.12345, "batch_size": 1024}) == "dropout 0.123, batch_size 1024"
