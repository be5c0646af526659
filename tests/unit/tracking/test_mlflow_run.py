"""A training in its MLflow run: each epoch once, parameters that stay, and how it ended."""

from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient

from cifar_tasks.config import with_values
from cifar_tasks.errors import TrackingError
from cifar_tasks.models import get_model
from cifar_tasks.tracking.mlflow_run import MlflowCallback
from cifar_tasks.training.callbacks import Snapshot
from cifar_tasks.training.state import EpochMetrics, TrainingState

PARAMS = {"learning_rate": 0.1, "device": "CPU"}


def state(epochs: int = 0, label: str = "", worse: float = 0) -> TrainingState:
    """A training after so many epochs, of which the second is the best; all losses are `worse` than usual."""
    config = with_values(get_model("cnn").recipes["demo"], {"epochs": 3})
    trained = TrainingState(torch.nn.Linear(2, 2), config, 1, label)
    for epoch, loss, accuracy in zip(range(1, epochs + 1), (0.9, 0.5, 0.6), (0.7, 0.72, 0.74), strict=False):
        trained.record(EpochMetrics(epoch, 2 * loss + worse, 0.5, loss + worse, accuracy, 0.1, 100.0))
    return trained


def train(callback: MlflowCallback, resumed: int = 0, until: int = 3, error: BaseException | None = None) -> None:
    """What a training that resumes after an epoch says to its callback, and its head before it."""
    callback.on_train_start(state(resumed))
    if not resumed:
        callback.on_train_start(state(label="head_"))
        callback.on_epoch_end(Snapshot.of(state(1, "head_")))
        callback.on_train_end(state(1, "head_"), error)
    for epochs in range(resumed + 1, until + 1):
        callback.on_epoch_end(Snapshot.of(state(epochs)))
    callback.on_train_end(state(until), error)


def logged(client: MlflowClient, run_id: str, metric: str) -> list[tuple[int, float]]:
    return [(entry.step, entry.value) for entry in client.get_metric_history(run_id, metric)]


def test_the_run_shows_parameters_metrics_of_each_part_and_how_training_ended(mlflow_client, run_id, tmp_path):
    train(MlflowCallback(mlflow_client, run_id, PARAMS))
    run = mlflow_client.get_run(run_id)
    assert run.data.params == {"learning_rate": "0.1", "device": "CPU"}
    assert logged(mlflow_client, run_id, "learning_rate") == [(1, 0.1), (2, 0.1), (3, 0.1)]
    assert logged(mlflow_client, run_id, "head_validation_loss") == [(1, 0.9)]
    assert "epoch" not in run.data.metrics
    assert run.data.tags["cifar.ended_because"] == "all epochs are done"
    assert run.data.tags["cifar.best_epoch"] == "2"
    assert Path(tmp_path, "artifacts", run_id, "artifacts", "learning_curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_resumed_training_logs_what_the_run_does_not_show_yet_and_nothing_twice(mlflow_client, run_id):
    first = MlflowCallback(mlflow_client, run_id, PARAMS)
    train(first, until=1, error=KeyboardInterrupt())
    # Killed between the second epoch's checkpoint and its metrics.
    train(MlflowCallback(mlflow_client, run_id, PARAMS), resumed=2)
    assert logged(mlflow_client, run_id, "learning_rate") == [(1, 0.1), (2, 0.1), (3, 0.1)]
    assert logged(mlflow_client, run_id, "head_train_loss") == [(1, 1.8)]


@pytest.mark.parametrize("label", ["", "head_"])
def test_epochs_that_a_retry_trains_again_with_another_result_are_logged_again(mlflow_client, run_id, label):
    for worse, epochs in ((1.0, (1, 2)), (0, (1, 2, 3))):
        callback = MlflowCallback(mlflow_client, run_id, PARAMS)
        callback.on_train_start(state(label=label))
        for epoch in epochs:
            callback.on_epoch_end(Snapshot.of(state(epoch, label, worse)))
    assert logged(mlflow_client, run_id, f"{label}validation_loss") == [
        (1, 1.9),
        (2, 1.5),
        (1, 0.9),
        (2, 0.5),
        (3, 0.6),
    ]


def test_what_is_different_in_a_resumed_training_becomes_a_tag(mlflow_client, run_id):
    train(MlflowCallback(mlflow_client, run_id, PARAMS), until=1)
    train(MlflowCallback(mlflow_client, run_id, {**PARAMS, "device": "H100", "processes": 2}), resumed=1)
    run = mlflow_client.get_run(run_id)
    assert run.data.params == {"learning_rate": "0.1", "device": "CPU", "processes": "2"}
    assert run.data.tags["cifar.device"] == "H100"
    assert "cifar.learning_rate" not in run.data.tags


@pytest.mark.parametrize("label", ["", "head_"])
def test_the_run_shows_the_metrics_of_the_best_epoch_which_is_saved(mlflow_client, run_id, label):
    for _ in range(2):  # a retry whose earlier try ended after the training
        callback = MlflowCallback(mlflow_client, run_id, PARAMS)
        callback.on_train_start(state(label=label))
        for epochs in (1, 2, 3):
            callback.on_epoch_end(Snapshot.of(state(epochs, label)))
        callback.on_train_end(state(3, label), None)
    shown = mlflow_client.get_run(run_id).data.metrics
    assert shown[f"{label}validation_loss"] == 0.5
    assert shown[f"{label}train_loss"] == 1.0
    assert shown[f"{label}validation_accuracy"] == 0.72
    assert logged(mlflow_client, run_id, f"{label}validation_loss") == [(1, 0.9), (2, 0.5), (3, 0.6), (3, 0.5)]


def test_the_metrics_of_a_training_whose_last_epoch_is_the_best_are_logged_once(mlflow_client, run_id):
    train(MlflowCallback(mlflow_client, run_id, PARAMS), until=2)
    assert logged(mlflow_client, run_id, "validation_loss") == [(1, 0.9), (2, 0.5)]


def test_a_training_that_fails_has_no_ending(mlflow_client, run_id):
    train(MlflowCallback(mlflow_client, run_id, PARAMS), until=1, error=RuntimeError())
    assert "cifar.best_epoch" not in mlflow_client.get_run(run_id).data.tags
    assert not mlflow_client.list_artifacts(run_id)


@pytest.mark.parametrize("call", ["on_train_start", "on_epoch_end", "on_train_end"])
@pytest.mark.parametrize("deleted", [True, False])
def test_a_run_that_was_deleted_is_an_error_worth_a_retry_which_makes_a_new_one(mlflow_client, run_id, call, deleted):
    mlflow_client.delete_run(run_id)
    callback = MlflowCallback(mlflow_client, run_id if deleted else "0" * 32, PARAMS)
    calls = {
        "on_train_start": lambda: callback.on_train_start(state()),
        "on_epoch_end": lambda: callback.on_epoch_end(Snapshot.of(state(1))),
        "on_train_end": lambda: callback.on_train_end(state(1), None),
    }
    with pytest.raises(TrackingError, match="a retry makes a new one") as caught:
        calls[call]()
    assert caught.value.retryable
