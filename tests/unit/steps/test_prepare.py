"""The dataset version of a run and its MLflow run, and what is refused before the data are touched."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cifar_tasks.config import flat
from cifar_tasks.data import preparation
from cifar_tasks.data.lines.line_log import Delivery, LineDataset, LineOutcome, append_entry
from cifar_tasks.data.versions import load_version
from cifar_tasks.errors import ConfigError, DataError, NothingToTrain
from cifar_tasks.models import get_model
from cifar_tasks.steps import prepare
from cifar_tasks.steps.payloads import EvaluatedModel, LineVersion, RunRequest, WorkflowRun, skipped_key
from cifar_tasks.steps.prepare import find_version, prepare_data, refuse_other_request, refuse_what_was_trained
from cifar_tasks.tracking.endings import workflow_lease
from cifar_tasks.tracking.runs import REQUEST
from tests.dataset_lines import deliver, first_delivery, picture
from tests.promotions import registered_as
from tests.stores import InMemoryStore
from tests.unit.data.sources import NoiseSource, quiet
from tests.unit.steps.conftest import Services

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
    first, second = (preparation.prepare(NoiseSource(seed), store, 0, quiet) for seed in (1, 2))
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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of 40 training and 10 test images."""
    return first_delivery(tmp_path / "source")


def asked(services: Services, folder: Path, **changes: Any) -> RunRequest:
    fields = {"source": str(folder), "registered_model": services.registered_model}
    return RunRequest.model_validate(FIELDS | fields | changes)


@pytest.fixture
def in_experiment(services: Services, monkeypatch: pytest.MonkeyPatch) -> Services:
    monkeypatch.setenv("CIFAR_EXPERIMENT", services.client.get_experiment(services.experiment).name)
    return services


def test_a_run_begins_with_a_dataset_version_and_an_mlflow_run_that_shows_it(in_experiment: Services, folder: Path):
    services, request = in_experiment, asked(in_experiment, folder)
    data = prepare_data(request, RUN)
    version = load_version(services.store, data.dataset_uri)
    assert [version.size(split) for split in ("train", "validation", "test")] == [36, 4, 10]
    run = services.client.get_run(data.parent_run_id)
    assert (run.info.status, run.info.run_name, run.data.tags["cifar.dataset"]) == ("RUNNING", "mine", version.digest)
    assert run.data.params.items() >= {"train_images": "36", "classes": "2", "image_size": "32"}.items()
    assert {entry.path for entry in services.client.list_artifacts(run.info.run_id, "dataset")} >= {
        "dataset/sample.png",
        "dataset/version.json",
    }
    assert prepare_data(request, RUN) == data  # a retry


def test_the_seed_draws_the_validation_images(in_experiment: Services, folder: Path):
    of_seeds = [
        find_version(asked(in_experiment, folder, overrides=values), in_experiment.store)[0]
        for values in ({}, {"seed": 0}, {"seed": 7})
    ]
    assert of_seeds[0] == of_seeds[1]
    assert of_seeds[1].digest != of_seeds[2].digest


def test_a_source_that_changed_since_the_run_began_is_refused(in_experiment: Services, folder: Path):
    prepare_data(asked(in_experiment, folder), RUN)
    deliver(folder, "train/bee/new.png", picture(5000))
    with pytest.raises(DataError, match=r"has changed since run 'mine' began\. Start a new run"):
        prepare_data(asked(in_experiment, folder), RUN)


def test_a_run_that_fails_for_its_source_shows_in_mlflow(in_experiment: Services, folder: Path):
    shutil.rmtree(folder / "train")
    with pytest.raises(DataError):
        prepare_data(asked(in_experiment, folder), RUN)
    found = in_experiment.client.search_runs([in_experiment.experiment], "tags.`cifar.workflow` = 'cli/mine'")
    assert [run.info.run_name for run in found] == ["mine"]


def test_two_runs_that_train_the_same_go_one_after_the_other(
    in_experiment: Services, folder: Path, monkeypatch, caplog
):
    services = in_experiment
    services.store.put(workflow_lease(RUN.id), b"")  # somebody works on it
    first = prepare_data(asked(services, folder), RUN)
    waited: list[float] = []

    def other_ends(seconds: float) -> None:
        waited.append(seconds)
        services.client.set_terminated(first.parent_run_id, "FAILED")

    monkeypatch.setattr(prepare.time, "sleep", other_ends)
    second = prepare_data(asked(services, folder), WorkflowRun(id="cli/other", name="other"))
    assert len(waited) == 1
    assert second.parent_run_id != first.parent_run_id
    assert "waiting for cli/mine, which trains the same now" in caplog.text
    forced = asked(services, folder, force=True)
    assert prepare_data(forced, WorkflowRun(id="cli/third", name="third")).parent_run_id
    assert len(waited) == 1


def test_what_was_trained_before_is_not_trained_again(services: Services, evaluated: EvaluatedModel):
    trained = evaluated.trained
    name, client = services.registered_model, services.client
    registered_as(client, evaluated, name)
    client.set_terminated(trained.plan.data.parent_run_id)
    version = load_version(services.store, trained.plan.data.dataset_uri)
    request = RunRequest.model_validate(FIELDS | {"registered_model": name, "models": ["cnn", "resnet50"]})
    configs = [trained.plan.config, get_model("resnet50").config("demo")]
    refuse_what_was_trained(client, services.store, request, version, configs)  # the other network was not
    services.store.put(skipped_key(trained.plan.data.workflow.id, "resnet50"), b"no weights")
    with pytest.raises(NothingToTrain, match=r"version 1 \(cnn\) .* It went on without resnet50, whose weights"):
        refuse_what_was_trained(client, services.store, request, version, configs)
    alone = request.model_copy(update={"models": ["cnn"]})
    with pytest.raises(NothingToTrain, match=r"^nothing to train: [^.]*\. To train again, set force"):
        refuse_what_was_trained(client, services.store, alone, version, configs[:1])


def test_what_a_run_would_train_is_what_its_request_says(services: Services, evaluated: EvaluatedModel):
    version = load_version(services.store, evaluated.trained.plan.data.dataset_uri)
    request = RunRequest.model_validate(FIELDS | {"models": ["cnn", "resnet50"], "overrides": {"epochs": 3}})
    found = prepare.planned_configs(services.client, request, version)
    assert [(config.model, flat(config)["epochs"]) for config in found] == [("cnn", 3), ("resnet50", 3)]
