"""Training one model: its MLflow run, its saved model, and what a second try finds and repeats."""

import json
import logging

import pytest

from cifar_tasks.config import flat, with_values
from cifar_tasks.data.versions import load_version
from cifar_tasks.errors import ConfigError, LeaseLost, ModelSkipped, WeightsError
from cifar_tasks.models import get_model
from cifar_tasks.steps import train as step
from cifar_tasks.steps.payloads import ParamsSource, TrainPlan
from cifar_tasks.steps.report import report, skipped_models
from cifar_tasks.steps.train import params_source_tags, train_model, training_digest
from cifar_tasks.storage.checkpoints import save_checkpoint
from cifar_tasks.storage.lease import Lease
from cifar_tasks.storage.s3 import canonical_json, sha256_hex
from cifar_tasks.tracking import runs
from cifar_tasks.tracking.provenance import code_digest
from tests.unit.steps.conftest import SMALL


@pytest.fixture
def plan(small_plan: TrainPlan) -> TrainPlan:
    return small_plan


def test_a_training_leaves_a_run_with_a_saved_model_and_a_retry_finds_it(services, plan, caplog, monkeypatch):
    with caplog.at_level(logging.INFO):
        trained = train_model(plan)
    version = load_version(services.store, plan.data.dataset_uri)
    run = services.client.get_run(trained.run_id)
    tags, data = run.data.tags, plan.data
    assert (run.info.status, run.info.run_name) == ("FINISHED", "cnn")
    assert (tags["mlflow.parentRunId"], tags["cifar.workflow"]) == (data.parent_run_id, data.workflow.id)
    assert (tags["cifar.training"], tags["cifar.dataset"]) == (training_digest(plan.config, version), version.digest)
    assert (tags["cifar.code_sha256"], tags["cifar.params_source"]) == (code_digest(), "recipe")
    assert "mlflow.source.git.commit" in tags
    assert run.inputs.dataset_inputs[0].tags[0].value == "training"
    assert {entry.path for entry in services.client.list_artifacts(trained.run_id)} >= {"model_summary.txt"}

    curve = services.client.get_metric_history(trained.run_id, "validation_accuracy")
    assert [entry.step for entry in curve] == [1, 2]
    assert trained.validation_accuracy in {entry.value for entry in curve}
    assert (trained.epochs, trained.validation_images) == (2, 10)
    assert trained.parameters == int(run.data.params["parameters_total"])
    assert trained.config_sha256 == sha256_hex(canonical_json(flat(plan.config)))
    assert trained.mlflow_url == runs.run_url(trained.run_id, data.experiment_id)
    assert any(line.startswith("cnn on ") and line.endswith(": 16 images, 10 to validate") for line in caplog.messages)

    model = services.client.get_logged_model(trained.saved.model_id)
    assert model.tags["config_sha256"] == trained.config_sha256
    assert step.metadata_of(version) == {"classes": ["ant", "bee"], "image_size": 32, "resize": "crop"}

    assert list(services.store.keys("runs/")) == [f"{trained.prefix}/trained.json"]  # no lease, no checkpoint
    caplog.clear()
    monkeypatch.setattr(step, "fit_classifier", lambda *arguments: pytest.fail("it is trained again"))
    with caplog.at_level(logging.INFO):
        assert train_model(plan) == trained
    assert "trained already" in caplog.messages


def test_a_step_that_died_before_its_clean_up_leaves_no_checkpoints_after_its_retry(services, plan):
    # given
    trained = train_model(plan)
    save_checkpoint(services.store, f"{trained.prefix}/checkpoints/0123/epochs", 2, b"weights")
    # when
    assert train_model(plan) == trained
    # then
    assert list(services.store.keys("runs/")) == [f"{trained.prefix}/trained.json"]


def test_a_retry_resumes_after_the_last_checkpoint_in_the_same_run(services, plan, monkeypatch, caplog):
    saved = step.save_model

    def fail(*arguments: object) -> None:
        raise InterruptedError

    monkeypatch.setattr(step, "save_model", fail)
    with pytest.raises(InterruptedError):
        train_model(plan)
    (failed,) = runs.find_runs(services.client, services.experiment, {"cifar.workflow": plan.data.workflow.id})
    assert failed.info.status == "FAILED"
    assert any("/epochs/epoch-0002" in key for key in services.store.keys("runs/"))
    monkeypatch.setattr(step, "save_model", saved)
    with caplog.at_level(logging.INFO):
        trained = train_model(plan)
    assert "resuming after epoch 2" in caplog.messages
    assert trained.run_id == failed.info.run_id


def test_a_training_whose_lease_is_lost_saves_nothing_and_leaves_the_run_to_the_other(services, plan, monkeypatch):
    fit = step.fit_classifier

    def lose_the_lease_at_the_end(*arguments):
        state = fit(*arguments)
        monkeypatch.setattr(Lease, "check", lose)
        return state

    def lose(lease: Lease) -> None:
        raise LeaseLost("another process has it")

    monkeypatch.setattr(step, "fit_classifier", lose_the_lease_at_the_end)
    with pytest.raises(LeaseLost):
        train_model(plan)
    (run,) = runs.find_runs(services.client, services.experiment, {"cifar.workflow": plan.data.workflow.id})
    assert run.info.status == "RUNNING"
    assert not services.client.search_logged_models([services.experiment])
    assert not any(key.endswith("trained.json") for key in services.store.keys("runs/"))


def test_a_batch_that_processes_cannot_share_is_refused_before_anything_is_opened(services, plan, monkeypatch):
    monkeypatch.setenv("CIFAR_TRAINING_PROCESSES", "3")
    with pytest.raises(ConfigError, match="a batch of 8 images cannot be shared equally by 3 processes"):
        train_model(plan)
    assert not runs.find_runs(services.client, services.experiment, {"cifar.workflow": plan.data.workflow.id})


def test_a_model_without_its_weights_is_skipped_before_anything_is_opened_and_leaves_the_reason(
    services, plan, monkeypatch
):
    nowhere = {"source": "/nowhere", "sha256": "0" * 64}
    monkeypatch.setenv("CIFAR_PRETRAINED_WEIGHTS", json.dumps({"resnet50": nowhere}))
    resnet50 = plan.model_copy(update={"config": with_values(get_model("resnet50").config("demo"), SMALL)})
    with pytest.raises(ModelSkipped, match="resnet50 is not trained: there are no weights at /nowhere"):
        train_model(resnet50)
    assert not runs.find_runs(services.client, services.experiment, {"cifar.workflow": plan.data.workflow.id})
    (why,) = skipped_models(services.store, [], [resnet50])
    assert why.startswith("resnet50 is not trained: there are no weights at /nowhere")
    assert skipped_models(services.store, [], [plan]) == ["cnn is not trained: its task was skipped."]
    with pytest.raises(WeightsError, match=r"no model was trained\. resnet50 is not trained: there are no weights"):
        report([], [resnet50])


def test_data_and_configuration_decide_which_training_it_is(services, plan):
    version = load_version(services.store, plan.data.dataset_uri)
    first = training_digest(plan.config, version)
    assert training_digest(plan.config, version) == first
    assert training_digest(with_values(plan.config, {"seed": 1}), version) != first


def test_the_run_says_where_the_params_come_from():
    assert params_source_tags(None) == {"cifar.params_source": "recipe"}
    source = ParamsSource(text="study s, trial 0", params={}, study="s", trial=0)
    assert params_source_tags(source) == {
        "cifar.params_source": "study s, trial 0",
        "cifar.study": "s",
        "cifar.trial": 0,
    }
