"""What a training that is killed, stopped or broken leaves, and what its retry makes of it."""

import hashlib
import json
import logging
import re
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from mlflow import MlflowClient
from mlflow.entities import LoggedModelStatus
from torchvision.models import resnet50

from cifar_tasks.errors import LeaseLost, ModelSkipped, TrainingError, WorkerLost
from cifar_tasks.settings import Settings
from cifar_tasks.steps import train as train_step
from cifar_tasks.steps.payloads import PreparedData, TrainedModel, TrainPlan
from cifar_tasks.steps.train import train_model
from cifar_tasks.storage.checkpoints import newest_checkpoint
from cifar_tasks.storage.lease import acquire_lease
from cifar_tasks.storage.s3 import S3Store, canonical_json, sha256_hex
from cifar_tasks.tracking import runs
from cifar_tasks.tracking.mlflow_run import MlflowCallback
from cifar_tasks.tracking.saved_model import load_model
from tests.conftest import RunningStack, connect
from tests.trainings import (
    SHORT_TERMS,
    TRAIN,
    Background,
    as_json,
    child_run,
    prepared,
    train_plan,
)
from tests.waiting import wait_until

TRAIN_ON_SHORT_TERMS = "tests.trainings:train_on_short_terms"
METRICS = ("train_loss", "validation_loss", "validation_accuracy")


@pytest.fixture(autouse=True)
def short_terms(monkeypatch: pytest.MonkeyPatch) -> None:
    """A retry waits for the lease of the try that was killed: not for a minute."""
    monkeypatch.setattr(train_step, "acquire_lease", partial(acquire_lease, terms=SHORT_TERMS))


@pytest.fixture(scope="module")
def uninterrupted(backend: RunningStack, pictures: Path) -> TrainedModel:
    """What a training of three epochs that nobody disturbs returns."""
    with pytest.MonkeyPatch.context() as patch:
        connect(patch, backend.environment)
        data = prepared(pictures, "uninterrupted")
        return train_model(train_plan(data, epochs=3))


def history(client: MlflowClient, run_id: str, name: str) -> list[tuple[int, float]]:
    return [(metric.step, metric.value) for metric in client.get_metric_history(run_id, name)]


def check_retry(client: MlflowClient, name: str, data: PreparedData, uninterrupted: TrainedModel) -> None:
    """The retry goes on in the same run and ends exactly like a training that nobody disturbed."""
    (before,) = child_run(client, f"test/{name}")
    retried = train_model(train_plan(data, epochs=3))
    (after,) = child_run(client, f"test/{name}")
    assert retried.run_id == before.info.run_id == after.info.run_id
    assert after.info.status == "FINISHED"
    for metric in METRICS:
        assert history(client, retried.run_id, metric) == history(client, uninterrupted.run_id, metric), metric
    weights, expected = (saved_weights(trained) for trained in (retried, uninterrupted))
    assert weights.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(weights[key], value), key
    assert not list(S3Store(Settings().bucket).keys(f"{retried.prefix}/checkpoints"))


def saved_weights(trained: TrainedModel) -> dict[str, torch.Tensor]:
    return dict(load_model(trained.saved).state_dict())


def test_a_training_killed_in_mid_epoch_goes_on_in_the_same_run_to_the_same_end(client, pictures, uninterrupted):
    data = prepared(pictures, "killed")
    step = Background(TRAIN, plan=as_json(train_plan(data, epochs=3)))
    wait_until(lambda: any(line.startswith("epoch 2/3") for line in step.lines))
    step.child().send_signal(signal.SIGKILL)
    step.join()
    assert isinstance(step.error, WorkerLost)
    check_retry(client, "killed", data, uninterrupted)


def test_a_training_killed_while_it_writes_a_checkpoint_goes_on_from_the_one_before(
    client, pictures, uninterrupted, caplog
):
    data = prepared(pictures, "killed-writing")
    hangs = "tests.trainings:train_and_hang_while_writing_a_checkpoint"
    step = Background(hangs, plan=as_json(train_plan(data, epochs=3)))
    wait_until(lambda: "hanging" in step.lines)
    step.child().send_signal(signal.SIGKILL)
    step.join()
    with caplog.at_level(logging.INFO):
        check_retry(client, "killed-writing", data, uninterrupted)
    assert "epoch-0002: writing it was interrupted" in caplog.text
    assert "resuming after epoch 1" in caplog.text


def check_once(client: MlflowClient, name: str, trained: TrainedModel, uninterrupted: TrainedModel) -> None:
    """Two tries left what one that nobody disturbed leaves."""
    (run,) = child_run(client, f"test/{name}")
    assert (run.info.run_id, run.info.status) == (trained.run_id, "FINISHED")
    for metric in METRICS:
        assert history(client, trained.run_id, metric) == history(client, uninterrupted.run_id, metric), metric
    saved = client.search_logged_models([run.info.experiment_id], filter_string=f"source_run_id='{run.info.run_id}'")
    whole = [f"models:/{model.model_id}" for model in saved if model.status == LoggedModelStatus.READY]
    assert whole == [trained.saved.uri]
    left = list(S3Store(Settings().bucket).keys(f"{trained.prefix}/"))
    assert left == [f"{trained.prefix}/trained.json"]


def test_a_training_killed_before_its_saved_model_has_its_digest_saves_it_again_and_leaves_one(
    client, pictures, uninterrupted
):
    data = prepared(pictures, "killed-saving")
    hangs = "tests.trainings:train_and_hang_before_the_model_has_its_digest"
    step = Background(hangs, plan=as_json(train_plan(data, epochs=3)))
    wait_until(lambda: "hanging" in step.lines, 120)
    step.child().send_signal(signal.SIGKILL)
    step.join()
    retried = train_model(train_plan(data, epochs=3))
    check_once(client, "killed-saving", retried, uninterrupted)
    saved = client.search_logged_models([data.experiment_id], filter_string=f"source_run_id='{retried.run_id}'")
    assert sorted(model.status for model in saved) == [LoggedModelStatus.FAILED, LoggedModelStatus.READY]


def said(step: Background, words: str) -> bool:
    return any(words in line for line in step.lines)


def alive(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


def tries_of(pictures: Path, name: str) -> Iterator[Background]:
    """The same training, as often as it is asked for, each time in a process of its own."""
    data = prepared(pictures, name)
    while True:
        yield Background(TRAIN_ON_SHORT_TERMS, plan=as_json(train_plan(data, epochs=3)))


def test_a_training_that_is_started_twice_at_once_runs_once(client, pictures, uninterrupted):
    tries = tries_of(pictures, "twice")
    both = [next(tries), next(tries)]
    for step in both:
        step.join()
    assert both[0].result == both[1].result
    check_once(client, "twice", TrainedModel.model_validate(both[0].result), uninterrupted)
    first, second = sorted(both, key=lambda step: said(step, "waiting"))
    assert said(first, "epoch 3/3")
    assert not said(second, "epoch")
    assert said(second, "trained already")
    assert len([line for line in second.lines if line.startswith("waiting for process")]) == 1


def test_one_that_waits_takes_over_when_the_training_is_killed(client, pictures, uninterrupted):
    tries = tries_of(pictures, "killed-beside-another")
    both = [next(tries), next(tries)]
    wait_until(lambda: any(said(step, "waiting") for step in both) and any(said(step, "epoch 2/3") for step in both))
    killed, waits = sorted(both, key=lambda step: said(step, "waiting"))
    (told,) = (line for line in waits.lines if line.startswith("waiting"))
    trains = psutil.Process(int(re.findall(r"process (\d+) on", told)[0]))
    trains.send_signal(signal.SIGKILL)
    for step in both:
        step.join()
    assert isinstance(killed.error, WorkerLost)
    assert said(waits, f"taking over from process {trains.pid} on ")
    assert said(waits, "resuming after epoch")
    check_once(client, "killed-beside-another", TrainedModel.model_validate(waits.result), uninterrupted)


def test_one_that_was_believed_dead_stops_when_it_wakes_and_leaves_the_run_to_the_other(
    client, pictures, uninterrupted
):
    tries = tries_of(pictures, "frozen")
    first = next(tries)
    wait_until(lambda: said(first, "epoch 2/3"))
    trains = first.child()
    trains.send_signal(signal.SIGSTOP)
    second = next(tries)
    wait_until(lambda: said(second, "taking over"))
    trains.send_signal(signal.SIGCONT)
    first.join(60)
    assert isinstance(first.error, LeaseLost)
    second.join()
    check_once(client, "frozen", TrainedModel.model_validate(second.result), uninterrupted)


def test_processes_that_train_together_stop_when_their_lease_is_taken_and_leave_the_run_alone(
    client, pictures, monkeypatch
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("CIFAR_TRAINING_PROCESSES", "2")
    data = prepared(pictures, "taken")
    step = Background(TRAIN_ON_SHORT_TERMS, plan=as_json(train_plan(data, epochs=500)))
    wait_until(lambda: said(step, "epoch 1/500"))
    store, trains = S3Store(Settings().bucket), step.child()
    (key,) = (key for key in store.keys(f"runs/{sha256_hex(b'test/taken')[:16]}/") if key.endswith("/lease.json"))
    processes = trains.children(recursive=True)
    store.put(key, canonical_json({"owner": {"host": "another", "pid": 1, "token": "x"}, "writes": 1}))
    step.join(15)
    assert isinstance(step.error, LeaseLost)
    assert f"another process has taken over {store.uri(key)}" in str(step.error)
    wait_until(lambda: not any(alive(process) for process in processes), 10)
    (run,) = child_run(client, "test/taken")
    assert run.info.status == "RUNNING"
    assert store.exists(key)


def test_a_stopped_training_says_so_in_mlflow_ends_in_time_and_keeps_its_checkpoint(client, pictures):
    data = prepared(pictures, "stopped")
    step = Background(TRAIN, plan=as_json(train_plan(data, epochs=500)))
    wait_until(lambda: any("epoch 2/500" in line for line in step.lines))
    began = time.monotonic()
    step.child().send_signal(signal.SIGTERM)
    step.join(20)
    assert time.monotonic() - began < 10
    (run,) = child_run(client, "test/stopped")
    assert run.info.status == "KILLED"
    store = S3Store(Settings().bucket)
    of_this_run = f"runs/{sha256_hex(b'test/stopped')[:16]}/"
    (prefix,) = {key.rpartition("/")[0] for key in store.keys(of_this_run) if key.endswith(".safetensors")}
    assert newest_checkpoint(store, prefix) is not None


def test_a_retry_on_another_device_can_say_so(client):
    """MLflow's parameters can never change: this failed every retry on a worker with another GPU."""
    experiment = runs.experiment_id(client, Settings().experiment)
    run_id = client.create_run(experiment).info.run_id
    for gpu in ("one GPU", "another GPU"):
        MlflowCallback(client, run_id, {"device": gpu, "epochs": 2}).on_train_start(
            SimpleNamespace(label="", history=[])
        )
    data = client.get_run(run_id).data
    assert data.params == {"device": "one GPU", "epochs": "2"}
    assert data.tags["cifar.device"] == "another GPU"
    assert "cifar.epochs" not in data.tags


def interrupt_before_saving(monkeypatch: pytest.MonkeyPatch, plan: TrainPlan) -> None:
    def interrupt(*arguments: Any) -> None:
        raise InterruptedError

    with monkeypatch.context() as patch:
        patch.setattr(train_step, "save_model", interrupt)
        with pytest.raises(InterruptedError):
            train_model(plan)


def test_a_loss_that_is_no_number_fails_the_run_at_once_and_for_good(client, pictures):
    data = prepared(pictures, "diverged")
    with pytest.raises(TrainingError, match=r"loss is (nan|inf) in epoch 1, step \d+, at learning rate") as raised:
        train_model(train_plan(data, learning_rate=1e30))
    assert not raised.value.retryable
    (run,) = child_run(client, "test/diverged")
    assert run.info.status == "FAILED"


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Weights for ResNet50, told to the steps as ImageNet's."""
    path = tmp_path / "resnet50.pth"
    torch.save(resnet50(weights=None).state_dict(), path)
    own = {"source": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    monkeypatch.setenv("CIFAR_PRETRAINED_WEIGHTS", json.dumps({"resnet50": own}))
    return path


def test_resnet50_is_trained_once_there_are_weights_and_learns_its_head_first_and_only_once(
    client, pictures, monkeypatch, weights
):
    data = prepared(pictures, "weights-later")
    plan = train_plan(data, "resnet50", pretrained="if_available", head_epochs=2, epochs=1, batch_size=64)
    with monkeypatch.context() as patch:
        patch.setenv("CIFAR_PRETRAINED_WEIGHTS", json.dumps({"resnet50": {"source": "/nowhere", "sha256": "0" * 64}}))
        with pytest.raises(ModelSkipped, match="no weights at /nowhere"):
            train_model(plan)
    assert child_run(client, "test/weights-later", "resnet50") == []

    interrupt_before_saving(monkeypatch, plan)
    (run,) = child_run(client, "test/weights-later", "resnet50")
    head = client.get_metric_history(run.info.run_id, "head_validation_loss")
    assert [metric.step for metric in head] == [1, 2]

    trained = train_model(plan)
    assert trained.run_id == run.info.run_id
    assert client.get_metric_history(run.info.run_id, "head_validation_loss") == head
    tags = client.get_run(run.info.run_id).data.tags
    assert tags["cifar.initial_weights"].startswith("pretrained (SHA-256 ")
