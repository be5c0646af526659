"""Which models there are, and what is refused."""

from dataclasses import replace
from importlib.metadata import EntryPoint

import pytest

from cifar_tasks.config import PROFILES, flat
from cifar_tasks.errors import ConfigError
from cifar_tasks.models import available_models, default_models, get_model, parse_models, registry

ALL = list(available_models())


def test_the_report_s_two_networks_and_a_pretrained_one_that_needs_no_download_are_trained_by_default():
    assert default_models() == ["cnn", "efficientnet_lite0", "resnet50"]


def test_names_are_parsed_each_once():
    assert parse_models("resnet50, cnn,resnet50,") == ["resnet50", "cnn"]
    assert parse_models("") == []


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"no model 'vgg'; choose of cnn, efficientnet_lite0, resnet50, timm/NAME"):
        parse_models("cnn,vgg")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("timm/resnet18.a1_in1", "timm/resnet18.a1_in1k or "),
        ("timm/convnext_tiny.fb_in22", "timm/convnext_tiny.fb_in22k or "),
        ("timm/resnett18", "timm/resnet18 or "),
        ("TIMM/resnet18", ""),
        ("resnet18", "resnet50"),
        ("timm/", ""),
        ("timm/../../etc", ""),
    ],
)
def test_an_unknown_name_of_timm_is_refused_with_the_nearest_known_ones(name, meant):
    with pytest.raises(ConfigError) as caught:
        parse_models(f"cnn,{name}")
    assert f"no model {name!r}" in str(caught.value)
    assert (f"(did you mean {meant}" in str(caught.value)) if meant else True


@pytest.mark.parametrize("name", ALL)
def test_each_model_is_whole(name):
    spec = get_model(name)
    assert set(spec.recipes) == set(PROFILES)
    assert all(recipe.model == name for recipe in spec.recipes.values())
    assert spec.title
    assert spec.description.endswith(".")
    assert spec.search_space().keys() <= flat(spec.recipes["demo"]).keys()


@pytest.mark.parametrize("name", ALL)
def test_every_parameter_of_a_network_is_in_one_of_its_stages(name):
    spec = get_model(name)
    network = spec.build(spec.recipes["demo"], 3)
    stages = spec.stages_to_head(network)
    assert list(stages) == [parameter for parameter, _ in network.named_parameters()]
    assert list(stages.values()) == sorted(stages.values(), reverse=True)
    assert set(stages.values()) == set(range(max(stages.values()) + 1))
    assert {name for name, stage in stages.items() if stage == 0} == {
        name for name in stages if name.startswith(f"{spec.head(network)}.")
    }


def test_a_layer_that_is_in_no_stage_is_an_error_and_not_taken_for_the_head():
    spec = replace(get_model("cnn"), stages=(("features",),))
    with pytest.raises(ConfigError, match=r"cnn: classifier\.1\.weight is in none of its stages"):
        spec.build(spec.recipes["demo"], 10)


def test_a_profile_that_does_not_exist_is_refused():
    with pytest.raises(ConfigError, match="profile must be demo or full, got 'huge'"):
        get_model("cnn").config("huge")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("nowhere_at_all:SPEC", "nowhere_at_all:SPEC cannot be imported"),
        ("cifar_tasks.models.builtin.cnn:FULL", "must be a ModelSpec"),
        ("cifar_tasks.models.builtin.cnn:SPEC", "name of its own"),
    ],
)
def test_an_entry_point_that_cannot_be_used_is_named(monkeypatch, value, message):
    point = EntryPoint("broken", value, registry.ENTRY_POINTS)
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])
    available_models.cache_clear()
    with pytest.raises(ConfigError, match=message):
        available_models()
    monkeypatch.undo()
    available_models.cache_clear()
