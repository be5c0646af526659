"""Configurations refuse what cannot work, by name."""

import json
import re
from dataclasses import FrozenInstanceError, asdict

import pytest
from pydantic import TypeAdapter, ValidationError

from cifar_tasks.config import PROFILES, Overrides, TrainConfig, flat, parse_overrides, trial_config, with_values
from cifar_tasks.errors import ConfigError
from cifar_tasks.models import available_models, get_model

RECIPES = [(name, profile) for name in available_models() for profile in PROFILES]
CNN = get_model("cnn").recipes["demo"]


@pytest.mark.parametrize(("model", "profile"), RECIPES)
def test_every_recipe_survives_json(model, profile):
    recipe = get_model(model).recipes[profile]
    adapter = TypeAdapter(TrainConfig)
    assert adapter.validate_json(json.dumps(adapter.dump_python(recipe, mode="json"))) == recipe


def test_a_configuration_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        CNN.optimizer.learning_rate = 1.0


def test_flat_has_every_value_of_every_part_once_by_the_name_of_its_field():
    nested = [value for value in asdict(CNN).values() if isinstance(value, dict)]
    names = [name for name, value in asdict(CNN).items() if not isinstance(value, dict)]
    names += [name for part in nested for name in part]
    assert len(nested) == 4
    assert sorted(names) == sorted(set(names)) == sorted(flat(CNN))
    assert (flat(CNN)["learning_rate"], flat(CNN)["flip"]) == (CNN.optimizer.learning_rate, True)


@pytest.mark.parametrize(("model", "profile"), RECIPES)
def test_with_values_is_the_reverse_of_flat(model, profile):
    recipe = get_model(model).recipes[profile]
    assert with_values(CNN, flat(recipe)) == recipe


def test_with_values_changes_what_is_named_in_whatever_part_it_stands_and_nothing_else():
    changed = with_values(CNN, {"epochs": 9, "sam_radius": 0.3, "flip": False, "stage_decay": 0.5, "patience": 3})
    before, after = flat(CNN), flat(changed)
    assert {name: after[name] for name in before if before[name] != after[name]} == {
        "epochs": 9,
        "sam_radius": 0.3,
        "flip": False,
        "stage_decay": 0.5,
        "patience": 3,
    }


def test_a_name_that_no_part_has_is_refused():
    with pytest.raises(ConfigError, match="no setting 'colour'"):
        with_values(CNN, {"colour": "red"})


def test_none_and_the_recipe_s_own_override_nothing():
    for value in (None, "recipe"):
        values = Overrides.model_validate(dict.fromkeys(Overrides.model_fields, value))
        assert get_model("cnn").config("demo", values) == CNN


def test_an_override_of_pretrained_models_leaves_the_others_alone():
    values = Overrides(input_size=96, pretrained="none", epochs=7)
    cnn, resnet = (get_model(model).config("full", values) for model in ("cnn", "resnet50"))
    assert (cnn.input_size, cnn.epochs) == (0, 7)
    assert (resnet.input_size, resnet.transfer.pretrained, resnet.epochs) == (96, "none", 7)


@pytest.mark.parametrize(("model", "profile"), RECIPES)
def test_a_trial_is_a_shorter_training_on_fewer_images_by_the_same_recipe(model, profile):
    recipe = get_model(model).recipes[profile]
    trial = trial_config(recipe, profile)
    shorter = {"epochs", "head_epochs", "train_images", "validation_images"}
    assert trial.epochs <= min(recipe.epochs, 4)
    assert trial.transfer.head_epochs <= 1
    assert trial.train_images < (recipe.train_images or 45_000)
    assert trial.validation_images
    assert all(flat(trial)[name] == value for name, value in flat(recipe).items() if name not in shorter)


def test_what_is_written_on_the_command_line_gets_the_type_that_the_recipe_wants():
    values = parse_overrides(["epochs=3", "learning_rate=1e-2", "pretrained=none", "seed=1", "flip=off"]).given()
    assert values == {"epochs": 3, "learning_rate": 0.01, "pretrained": "none", "seed": 1, "flip": False}
    assert type(values["epochs"]) is int
    assert values["flip"] is False


@pytest.mark.parametrize("flip", [True, False])
def test_the_form_spells_a_boolean_as_a_choice_and_gets_it_back(flip):
    values = Overrides(flip=flip, epochs=1)
    assert values.as_form() == {"flip": "on" if flip else "off", "epochs": 1}
    assert Overrides.model_validate_json(json.dumps(values.as_form()), strict=True) == values


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("epochs", "--set epochs: write NAME=VALUE with NAME one of epochs, batch_size"),
        ("epoch=3", "--set epoch=3: write NAME=VALUE"),
        ("dropout=0.5", "--set dropout=0.5: write NAME=VALUE"),
        ("epochs=3.5", "--set epochs: Input should be a valid integer"),
        ("epochs=0", "--set epochs: Input should be greater than or equal to 1, got '0'"),
        ("epochs=", "--set epochs: Input should be a valid integer"),
        ("learning_rate=fast", "--set learning_rate: Input should be a valid number"),
        ("learning_rate=11", "--set learning_rate: Input should be less than or equal to 10"),
        ("learning_rate=nan", "--set learning_rate: Input should be"),
        ("learning_rate=inf", "--set learning_rate: Input should be less than or equal to 10"),
        ("learning_rate=-inf", "--set learning_rate: Input should be greater than or equal to 0.000001"),
        ("seed=-1", "--set seed: Input should be greater than or equal to 0"),
        ("pretrained=maybe", "--set pretrained: Input should be 'required', 'if_available' or 'none'"),
        ("flip=sideways", "--set flip: Input should be a valid boolean"),
    ],
)
def test_what_does_not_fit_on_the_command_line_is_named(pair: str, message: str):
    with pytest.raises(ConfigError, match=re.escape(message)):
        parse_overrides([pair])


@pytest.mark.parametrize(
    "values", [{"epochs": True}, {"epochs": 2.0}, {"epochs": "2"}, {"flip": 1}, {"seed": 1.0}, {"dropout": 0.5}]
)
def test_a_value_of_another_type_in_json_is_refused(values):
    with pytest.raises(ValidationError):
        Overrides.model_validate_json(json.dumps(values), strict=True)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("epochs", 0, "epochs must be at least 1, got 0"),
        ("batch_size", 0, "batch_size must be at least 1, got 0"),
        ("seed", -1, "seed must be at least 0, got -1"),
        ("input_size", -1, "input_size must be at least 0, got -1"),
        ("hidden_units", -1, "hidden_units must be at least 0, got -1"),
        ("learning_rate", 0.0, "learning_rate must be above 0"),
        ("weight_decay", -0.1, "weight_decay must be at least 0, got -0.1"),
        ("crop_padding", -1, "crop_padding must be at least 0, got -1"),
        ("head_epochs", -1, "head_epochs must be at least 0, got -1"),
        ("patience", 0, "patience must be at least 1, got 0"),
    ],
)
def test_a_configuration_refuses_a_bad_value_by_name(field, value, message):
    with pytest.raises(ConfigError, match=message):
        with_values(CNN, {field: value})


@pytest.mark.parametrize("changes", [{"colour": "red"}, {"optimizer": {"optimizer": "sgd", "colour": "red"}}])
def test_an_unknown_field_in_json_is_refused(changes):
    adapter = TypeAdapter(TrainConfig)
    with pytest.raises(ValidationError, match="colour"):
        adapter.validate_python({**adapter.dump_python(CNN, mode="json"), **changes})
