"""What is kept of a training is written beside it, in order, and never lost in silence."""

import threading
from collections.abc import Mapping
from typing import Any

import pytest
import torch

from cifar_tasks.config import TrainConfig, configure
from cifar_tasks.errors import StorageError
from cifar_tasks.storage.checkpoints import newest_checkpoint
from cifar_tasks.tracking.recorder import Recorder
from cifar_tasks.training import EpochMetrics, TrainingState
from tests.stores import FailingStore, InMemoryStore


class Notes:
    """A tracker that remembers."""

    def __init__(self, store: InMemoryStore) -> None:
        self.store = store
        self.epochs: list[tuple[str, int]] = []
        self.objects_by_then: list[set[str]] = []

    def log_parameters(self, parameters: Mapping[str, Any]) -> None: ...

    def log_epoch(self, epoch: int, metrics: Mapping[str, float], label: str = "") -> None:
        self.epochs.append((label, epoch))
        self.objects_by_then.append(set(self.store.objects))

    def log_figure(self, figure: Any, name: str) -> None: ...

    def log_ending(self, reason: str, best_epoch: int) -> None: ...


class SlowStore(InMemoryStore):
    """Writes nothing until it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.may_write = threading.Event()

    def put(self, key: str, data: bytes):
        assert self.may_write.wait(10)
        return super().put(key, data)


def config() -> TrainConfig:
    return configure("cnn", "demo", {"epochs": 5})


def state() -> TrainingState:
    return TrainingState(torch.nn.Linear(2, 2), config(), 1)


def train_an_epoch(state: TrainingState) -> None:
    with torch.no_grad():
        for parameter in state.model.parameters():
            parameter += 1
    epoch = len(state.history) + 1
    state.record(EpochMetrics(epoch, 1.0, 0.5, 1.0 / epoch, 0.5, 0.1, 100.0))


def record(store: InMemoryStore, epochs: int, trackers=(), ending: BaseException | None = None, **options) -> None:
    """A training of so many epochs, watched; it may end badly."""
    with Recorder(store, "run", trackers, "0123abc", **options) as recorder:
        trained = state()
        for _ in range(epochs):
            train_an_epoch(trained)
            recorder.epoch_done(trained)
        if ending is not None:
            raise ending


def test_writing_does_not_hold_up_the_training_and_keeps_the_state_of_its_epoch():
    store = SlowStore()
    with Recorder(store, "run", [], "id") as recorder:
        trained = state()
        train_an_epoch(trained)
        weights = trained.model.state_dict()["weight"].clone()
        recorder.epoch_done(trained)  # returns although nothing can be written
        train_an_epoch(trained)
        assert not store.objects
        store.may_write.set()
    resumed = state()
    Recorder(store, "run", [], "id").resume(resumed)
    assert len(resumed.history) == 1
    assert torch.equal(resumed.model.state_dict()["weight"], weights)


def test_trackers_hear_of_an_epoch_only_when_its_checkpoint_is_safe():
    store = InMemoryStore()
    notes = Notes(store)
    record(store, 3, [notes], label="head_")
    assert notes.epochs == [("head_", 1), ("head_", 2), ("head_", 3)]
    for epoch, objects in enumerate(notes.objects_by_then, 1):
        assert f"run/head_epochs/epoch-{epoch:04d}.json" in objects


def test_a_resumed_training_tells_the_trackers_what_they_may_not_have_heard():
    store = InMemoryStore()
    record(store, 2)
    notes = Notes(store)
    Recorder(store, "run", [notes], "id").resume(state())
    assert notes.epochs == [("", 1), ("", 2)]


def test_a_failed_write_ends_the_training_an_epoch_later():
    store = FailingStore(3)  # the first checkpoint is two writes
    with pytest.raises(StorageError):
        record(store, 100)
    assert newest_checkpoint(store, "run/epochs") is not None


def test_a_failed_last_write_is_not_lost():
    with pytest.raises(StorageError):
        record(FailingStore(1), 1)


def test_leaving_waits_for_what_is_being_written_also_when_told_to_stop():
    store = SlowStore()
    threading.Timer(0.3, store.may_write.set).start()
    with pytest.raises(KeyboardInterrupt):
        record(store, 1, ending=KeyboardInterrupt())
    assert newest_checkpoint(store, "run/epochs") is not None


def test_the_checkpoint_says_which_mlflow_run_it_belongs_to():
    store = InMemoryStore()
    record(store, 1)
    assert b'\\"mlflow_run_id\\": \\"0123abc\\"' in newest_checkpoint(store, "run/epochs")
