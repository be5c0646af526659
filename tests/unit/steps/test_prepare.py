"""What `prepare` refuses before it touches the data."""

from types import SimpleNamespace

import pytest

from cifar_tasks.errors import ConfigError
from cifar_tasks.steps.payloads import RunRequest, WorkflowRun
from cifar_tasks.steps.prepare import refuse_other_request
from cifar_tasks.tracking.runs import REQUEST

FIELDS = {"source": "digits", "models": ["cnn"], "profile": "demo", "registered_model": "test"}
RUN = WorkflowRun(id="cli/mine", name="mine")


def earlier(**changes: object) -> SimpleNamespace:
    """The MLflow run of a request."""
    request = RunRequest.model_validate(FIELDS | changes)
    return SimpleNamespace(data=SimpleNamespace(tags={REQUEST: request.model_dump_json()}))


def test_a_run_is_resumed_with_its_own_values() -> None:
    refuse_other_request(earlier(), RunRequest.model_validate(FIELDS), RUN)
    refuse_other_request(None, RunRequest.model_validate(FIELDS), RUN)


def test_other_values_for_the_name_of_an_earlier_run_are_named() -> None:
    before = earlier(source="cifar10", overrides={"epochs": 3})
    with pytest.raises(ConfigError) as refused:
        refuse_other_request(before, RunRequest.model_validate(FIELDS), RUN)
    assert str(refused.value).startswith("run 'mine' began with source 'cifar10', now 'digits'; epochs 3, now None. ")


def test_force_is_no_value_of_what_a_run_does() -> None:
    refuse_other_request(earlier(), RunRequest.model_validate({**FIELDS, "force": True}), RUN)


def test_a_run_from_before_requests_were_kept_is_resumed() -> None:
    nothing_kept = SimpleNamespace(data=SimpleNamespace(tags={}))
    refuse_other_request(nothing_kept, RunRequest.model_validate(FIELDS), RUN)
