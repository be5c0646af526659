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


def test_a_run_without_models_is_refused() -> None:
    with pytest.raises(ValidationError, match="models"):
        RunRequest.model_validate(FIELDS | {"models": []})


def test_the_form_s_own_names_stand_in_the_errors() -> None:
    with pytest.raises(ConfigError) as refused:
        RunRequest.from_form(FIELDS | {"flip": "maybe", "epochs": 0, "models": ["vgg", "cnm"]})
    lines = str(refused.value).splitlines()
    assert [line.partition(":")[0] for line in lines] == ["models", "epochs", "flip"]
    assert "there is no model 'vgg', 'cnm' (did you mean cnn?); choose of" in lines[0]
