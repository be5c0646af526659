"""What a user may ask for, before anything runs."""

import pytest
from pydantic import ValidationError

from cifar_tasks.errors import ConfigError
from cifar_tasks.steps.payloads import RunRequest

FIELDS = {"source": "digits", "models": ["cnn"], "profile": "demo", "registered_model": "test"}


def test_a_model_to_tune_must_be_among_the_models_to_train() -> None:
    with pytest.raises(ValidationError, match="resnet50 is not among the models to train"):
        RunRequest.model_validate(FIELDS | {"tune": ["resnet50"]})
    assert RunRequest.model_validate(FIELDS | {"tune": ["cnn"]}).tune == ["cnn"]


def test_a_run_without_models_is_refused_with_the_names_of_models() -> None:
    with pytest.raises(ValidationError, match="name one or more of cnn, "):
        RunRequest.model_validate(FIELDS | {"models": []})


def test_mirroring_is_unused_on_data_that_turn_out_to_be_digits() -> None:
    asked = RunRequest.model_validate(FIELDS | {"source": "auto", "overrides": {"flip": True}})
    assert asked.unused_overrides(placeholder=False) == {}
    assert asked.unused_overrides(placeholder=True) == {"flip": "cnn would not use it: digits are never mirrored"}


@pytest.mark.parametrize("size", [8, 64])
def test_an_input_size_is_unused_by_a_network_that_has_its_own(size: int) -> None:
    asked = {"profile": "demo", "overrides": {"input_size": size}}
    alone = RunRequest.model_validate(FIELDS | asked)
    assert alone.unused_overrides(placeholder=False) == {
        "input_size": "cnn would not use it: only networks with pretrained weights do"
    }
    beside_resnet50 = RunRequest.model_validate(FIELDS | asked | {"models": ["cnn", "resnet50"]})
    assert beside_resnet50.unused_overrides(placeholder=False) == {}


@pytest.mark.parametrize(
    ("source", "version", "accepted"),
    [
        ("line:products", "3", True),
        ("line:products", "0123abcd", True),
        ("line:products", None, True),
        ("digits", None, True),
        ("digits", "3", False),
        ("line:products", "x", False),
        ("line:", None, False),
        ("line:Products", None, False),
        ("line:a/b", None, False),
    ],
)
def test_a_dataset_version_belongs_to_a_line(source: str, version: str | None, accepted: bool) -> None:
    fields = {**FIELDS, "source": source, "dataset_version": version}
    if accepted:
        assert RunRequest.checked(fields).dataset_version == version
    else:
        with pytest.raises(ConfigError, match=r"source: give auto|dataset_version: "):
            RunRequest.checked(fields)


def test_a_search_may_have_a_single_worker() -> None:
    assert RunRequest.model_validate(FIELDS | {"tune": ["cnn"], "search_workers": 1}).search_workers == 1
    with pytest.raises(ValidationError, match="search_workers"):
        RunRequest.model_validate(FIELDS | {"tune": ["cnn"], "search_workers": 0})


def test_the_form_takes_what_is_without_effect() -> None:
    request = RunRequest.from_form(FIELDS | {"trials": 8, "search_workers": 2, "input_size": 64})
    assert (request.trials, request.overrides.input_size) == (8, 64)


def test_the_form_s_own_names_stand_in_the_errors() -> None:
    with pytest.raises(ConfigError) as refused:
        RunRequest.from_form(FIELDS | {"flip": "maybe", "epochs": 0, "models": ["vgg", "cnm"]})
    lines = str(refused.value).splitlines()
    assert [line.partition(":")[0] for line in lines] == ["models", "epochs", "flip"]
    assert "there is no model 'vgg', 'cnm' (did you mean cnn?); choose of" in lines[0]
