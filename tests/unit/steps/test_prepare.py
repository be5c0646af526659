"""What `prepare` refuses before it touches the data."""

from types import SimpleNamespace

import pytest

from cifar_tasks.data.lines.line_log import Delivery, LineDataset, LineOutcome, append_entry
from cifar_tasks.data.preparation import prepare
from cifar_tasks.errors import ConfigError, NothingToTrain
from cifar_tasks.steps.payloads import LineVersion, RunRequest, WorkflowRun
from cifar_tasks.steps.prepare import find_version, refuse_other_request
from cifar_tasks.tracking.runs import REQUEST
from tests.stores import InMemoryStore
from tests.unit.data.sources import NoiseSource, quiet

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


def test_a_resumed_run_takes_the_version_it_began_with_though_the_line_has_another_one_in_use() -> None:
    store = InMemoryStore()
    first, second = (prepare(NoiseSource(seed), store, 0, quiet) for seed in (1, 2))
    for version in (first, second):
        dataset = LineDataset(digest=version.digest, uri=version.uri, counts={}, index="", index_sha256="")
        entry = LineOutcome(kind="accepted", dataset=dataset, delivery=Delivery(objects=1, listing=""))
        append_entry(store, "products", lambda _, entry=entry: entry)
    request = RunRequest.model_validate({**FIELDS, "source": "line:products"})
    assert find_version(request, store) == (second, LineVersion(line="products", entry=2))
    assert find_version(request, store, began=first.digest) == (first, LineVersion(line="products", entry=1))
    past = request.model_copy(update={"dataset_version": "1"})
    assert find_version(past, store) == (first, LineVersion(line="products", entry=1))


def test_there_is_nothing_to_train_before_the_first_version_of_a_line_is_in_use() -> None:
    request = RunRequest.model_validate({**FIELDS, "source": "line:products"})
    with pytest.raises(NothingToTrain, match="the dataset line products has no version in use yet"):
        find_version(request, InMemoryStore())
    with pytest.raises(ConfigError, match="has no entry 1"):
        find_version(request.model_copy(update={"dataset_version": "1"}), InMemoryStore())


def test_force_is_no_value_of_what_a_run_does() -> None:
    refuse_other_request(earlier(), RunRequest.model_validate({**FIELDS, "force": True}), RUN)


def test_a_run_from_before_requests_were_kept_is_resumed() -> None:
    nothing_kept = SimpleNamespace(data=SimpleNamespace(tags={}))
    refuse_other_request(nothing_kept, RunRequest.model_validate(FIELDS), RUN)
