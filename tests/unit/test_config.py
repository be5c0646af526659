"""Configurations refuse what cannot work, by name."""

import dataclasses
import json
import re

import pytest

from cifar_tasks.config import MODELS, OVERRIDES, RECIPES, chosen_models, config_from_dict, configure, parse_overrides
from cifar_tasks.errors import ConfigError


@pytest.mark.parametrize("key", RECIPES)
def test_every_recipe_survives_json(key):
    recipe = RECIPES[key]()
    again = config_from_dict(json.loads(json.dumps(dataclasses.asdict(recipe))))
    assert again == recipe
    assert again.digest() == recipe.digest()


def test_another_value_is_another_digest():
    assert configure("cnn", "demo", {"seed": 1}).digest() != configure("cnn", "demo", {}).digest()


def test_none_overrides_nothing():
    assert configure("cnn", "demo", dict.fromkeys(OVERRIDES)) == RECIPES["cnn", "demo"]()


def test_an_override_of_resnet50_leaves_the_cnn_alone():
    values = {"image_size": 96, "pretrained": "none", "epochs": 7}
    cnn, resnet = (configure(model, "full", values) for model in MODELS)
    assert (cnn.image_size, cnn.epochs) == (32, 7)
    assert (resnet.image_size, resnet.pretrained, resnet.epochs) == (96, "none", 7)


def test_what_is_written_on_the_command_line_gets_the_type_that_the_recipe_wants():
    values = parse_overrides(["epochs=3", "learning_rate=1e-2", "pretrained=none", "seed=-1"])
    assert values == {"epochs": 3, "learning_rate": 0.01, "pretrained": "none", "seed": -1}
    assert type(values["epochs"]) is int


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("epochs", "--set epochs: write NAME=VALUE with NAME one of epochs, batch_size"),
        ("epoch=3", "--set epoch=3: write NAME=VALUE"),
        ("epochs=3.5", "--set epochs=3.5: epochs must be of type integer"),
        ("learning_rate=fast", "learning_rate must be of type number"),
        ("epochs=", "epochs must be of type integer"),
    ],
)
def test_what_cannot_be_read_on_the_command_line_is_named(pair: str, message: str):
    with pytest.raises(ConfigError, match=re.escape(message)):
        parse_overrides([pair])


@pytest.mark.parametrize("rate", ["nan", "inf", "-inf"])
def test_a_rate_that_is_no_number_is_refused(rate: str):
    with pytest.raises(ConfigError, match="learning_rate must be between"):
        configure("cnn", "demo", parse_overrides([f"learning_rate={rate}"]))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("epochs", 0, "epochs must be between 1 and 1000, got 0"),
        ("epochs", "many", "epochs must be of type integer, got 'many'"),
        ("epochs", True, "epochs must be of type integer"),
        ("learning_rate", 11.0, "learning_rate must be between 1e-06 and 10"),
        ("pretrained", "maybe", "pretrained must be one of required, preferred, none"),
        ("dropout", 0.5, "'dropout' cannot be overridden"),
    ],
)
def test_a_bad_override_is_refused_by_name(name, value, message):
    with pytest.raises(ConfigError, match=message):
        configure("cnn", "demo", {name: value})


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [("epochs", 0, "epochs must be at least 1, got 0"), ("learning_rate", 0.0, "learning_rate must be above 0")],
)
def test_a_configuration_refuses_a_bad_value_by_name(field, value, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(configure("cnn", "demo", {}), **{field: value})


def test_an_unknown_field_is_refused():
    with pytest.raises(ConfigError, match="'colour'"):
        config_from_dict({"model": "cnn", "colour": "red"})


def test_models_are_chosen_by_name():
    assert chosen_models("both") == ("cnn", "resnet50")
    assert chosen_models("cnn") == ("cnn",)
    with pytest.raises(ConfigError, match="vgg"):
        chosen_models("vgg")
