"""What is searched fits what a training takes."""

import optuna
import pytest
from optuna.distributions import CategoricalDistribution

from cifar_tasks.config import Overrides, flat, trial_config, with_values
from cifar_tasks.models import available_models, get_model
from cifar_tasks.tuning.space import format_params, free_space, recipe_params, suggest

MODELS = list(available_models())
CNN = get_model("cnn").config("demo")


@pytest.mark.parametrize("model", MODELS)
def test_every_hyperparameter_is_a_setting_of_a_training(model):
    assert free_space(get_model(model).config("full")).keys() <= flat(get_model(model).config("full")).keys()


@pytest.mark.parametrize("model", ["cnn", "resnet50"])
def test_the_report_s_three_are_searched_first(model):
    assert list(free_space(get_model(model).config("full")))[:3] == ["hidden_units", "weight_decay", "learning_rate"]


@pytest.mark.parametrize("model", ["cnn", "resnet50"])
def test_the_report_s_ranges_are_inside_of_ours(model):
    space = free_space(get_model(model).config("full"))
    assert space["weight_decay"].low <= 3e-6 < 8e-3 <= space["weight_decay"].high
    assert space["learning_rate"].low <= 2e-5 < 4e-2 <= space["learning_rate"].high


def test_what_the_user_has_set_is_not_searched():
    space = free_space(CNN, ["batch_size", "epochs"])
    assert space.keys() == free_space(CNN).keys() - {"batch_size"}
    assert suggest(optuna.create_study().ask(), space).keys() == space.keys()


@pytest.mark.parametrize(
    ("changes", "unused"),
    [
        ({"trained_stages": None, "head_epochs": 2}, set()),
        ({"trained_stages": 2, "head_epochs": 2}, {"stage_decay", "crop_padding"}),
        ({"trained_stages": None, "head_epochs": 0}, {"head_learning_rate"}),
        ({"trained_stages": 2, "head_epochs": 2, "pretrained": "none"}, {"stage_decay", "head_learning_rate"}),
    ],
)
def test_what_a_training_does_not_use_is_not_searched(changes, unused):
    config = with_values(get_model("efficientnet_lite0").config("full"), changes)
    assert get_model("efficientnet_lite0").search_space().keys() - free_space(config).keys() == unused


@pytest.mark.parametrize(
    ("model", "unused"), [("cnn", {"hidden_units"}), ("efficientnet_lite0", {"head_learning_rate"})]
)
def test_a_warm_start_searches_neither_the_shape_of_the_champion_nor_a_rate_of_its_head(model, unused):
    config = get_model(model).config("full")
    assert free_space(config).keys() - free_space(config, warm=True).keys() == unused


def test_weights_of_the_champion_are_not_random_whatever_the_recipe_starts_from():
    config = with_values(get_model("efficientnet_lite0").config("full"), {"pretrained": "none", "trained_stages": 2})
    assert "crop_padding" in free_space(config)
    assert "crop_padding" not in free_space(config, warm=True)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("profile", ["demo", "full"])
def test_the_recipe_is_a_point_of_the_space_and_stays_what_it_is(model, profile):
    recipe = get_model(model).config(profile)
    space = free_space(recipe)
    params = recipe_params(recipe, space)
    assert with_values(recipe, params) == recipe
    study = optuna.create_study()
    study.enqueue_trial(params)
    assert suggest(study.ask(), space) == params


def test_a_value_outside_of_the_space_moves_to_its_edge():
    space = free_space(CNN)
    outside = get_model("cnn").config("full", Overrides(learning_rate=3.0, batch_size=1000))
    params = recipe_params(outside, space)
    assert params["learning_rate"] == space["learning_rate"].high
    assert params["batch_size"] == 512
    below = recipe_params(get_model("cnn").config("full", Overrides(learning_rate=1e-6)), space)
    assert below["learning_rate"] == space["learning_rate"].low


@pytest.mark.parametrize("model", MODELS)
def test_ten_draws_are_ten_configurations_within_the_bounds(model):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    base = trial_config(get_model(model).config("demo"), "demo")
    space = free_space(base)
    trials = [study.ask() for _ in range(10)]
    configs = {with_values(base, suggest(trial, space)) for trial in trials}
    assert len(configs) == 10
    assert all(trial.distributions == space for trial in trials)


@pytest.mark.parametrize("model", MODELS)
def test_choices_are_numbers(model):
    for values in free_space(get_model(model).config("full")).values():
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
