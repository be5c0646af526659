"""Checkpoints in storage: the newest two, whole or not at all."""

import logging

import pytest
import torch

from cifar_tasks.errors import StorageError
from cifar_tasks.models import get_model
from cifar_tasks.storage.checkpoints import CheckpointCallback, forget_checkpoints, newest_checkpoint, save_checkpoint
from cifar_tasks.training.callbacks import BackgroundWriter, Callback, Snapshot
from cifar_tasks.training.state import EpochMetrics, TrainingState
from tests.stores import FailingStore, InMemoryStore

PREFIX = "runs/r/checkpoints"


def test_the_newest_is_found():
    store = InMemoryStore()
    for epoch in (1, 2, 11):
        save_checkpoint(store, PREFIX, epoch, f"epoch {epoch}".encode())
    assert newest_checkpoint(store, PREFIX) == b"epoch 11"


def test_the_newest_two_are_kept():
    store = InMemoryStore()
    for epoch in range(1, 5):
        save_checkpoint(store, PREFIX, epoch, b"x")
    names = {key.rsplit("/", 1)[-1].split(".")[0] for key in store.keys(PREFIX)}
    assert names == {"epoch-0003", "epoch-0004"}


def test_there_is_none_at_first():
    assert newest_checkpoint(InMemoryStore(), PREFIX) is None


@pytest.mark.parametrize("suffix", ["safetensors", "json"])
def test_a_damaged_newest_one_is_skipped_with_a_warning(suffix, caplog):
    store = InMemoryStore()
    save_checkpoint(store, PREFIX, 1, b"good")
    save_checkpoint(store, PREFIX, 2, b"better")
    store.put(f"{PREFIX}/epoch-0002.{suffix}", b"{")
    with caplog.at_level(logging.WARNING):
        assert newest_checkpoint(store, PREFIX) == b"good"
    assert "epoch-0002" in caplog.text


@pytest.mark.parametrize("write", [1, 2])
def test_an_interrupted_write_leaves_the_one_before(write, caplog):
    store = FailingStore(2 + write)  # the first checkpoint is two writes
    save_checkpoint(store, PREFIX, 1, b"good")
    with pytest.raises(StorageError):
        save_checkpoint(store, PREFIX, 2, b"better")
    assert newest_checkpoint(store, PREFIX) == b"good"
    assert ("interrupted" in caplog.text) == (write == 2)


def test_checkpoints_of_another_run_are_left_alone():
    store = InMemoryStore()
    save_checkpoint(store, PREFIX, 1, b"mine")
    save_checkpoint(store, "runs/other/checkpoints", 1, b"theirs")
    forget_checkpoints(store, PREFIX)
    assert newest_checkpoint(store, PREFIX) is None
    assert newest_checkpoint(store, "runs/other/checkpoints") == b"theirs"


def new_state(label: str = "") -> TrainingState:
    torch.manual_seed(0)
    return TrainingState(torch.nn.Linear(2, 2), get_model("cnn").recipes["demo"], 1, label)


def run_epochs(callback: Callback, epochs: int, label: str = "") -> TrainingState:
    """A training of so many epochs, without the training."""
    state = new_state(label)
    callback.on_train_start(state)
    for _ in range(epochs):
        with torch.no_grad():
            state.model.weight += 1
        state.record(EpochMetrics(len(state.history) + 1, 1.0, 0.5, 1.0, 0.5, 0.1, 100.0))
        callback.on_epoch_end(Snapshot.of(state))
    return state


@pytest.mark.parametrize("label", ["", "head_"])
def test_a_training_resumes_after_its_newest_epoch(label, caplog):
    store, resumed = InMemoryStore(), new_state(label)
    first = run_epochs(CheckpointCallback(store, PREFIX), 3, label)
    with caplog.at_level(logging.INFO):
        CheckpointCallback(store, PREFIX).on_train_start(resumed)
    assert len(resumed.history) == 3
    assert torch.equal(resumed.model.weight, first.model.weight)
    assert caplog.messages == [f"{label}resuming after epoch 3"]


def test_the_parts_of_a_training_have_checkpoints_of_their_own():
    store, resumed = InMemoryStore(), new_state()
    run_epochs(CheckpointCallback(store, PREFIX), 2, "head_")
    CheckpointCallback(store, PREFIX).on_train_start(resumed)
    assert not resumed.history
    assert {key.split("/")[3] for key in store.objects} == {"head_epochs"}


class Tracker(Callback):
    """Keeps which objects there were when it heard of an epoch."""

    def __init__(self, store: InMemoryStore) -> None:
        self.store = store
        self.objects: list[set[str]] = []
        self.resumed = 0

    def on_train_start(self, state: TrainingState) -> None:
        self.resumed = len(state.history)

    def on_epoch_end(self, snapshot: Snapshot) -> None:
        self.objects.append(set(self.store.objects))


def test_trackers_hear_of_an_epoch_only_when_its_checkpoint_is_safe():
    store = InMemoryStore()
    tracker = Tracker(store)
    writer = BackgroundWriter([CheckpointCallback(store, PREFIX), tracker])
    writer.on_train_end(run_epochs(writer, 3), None)
    assert len(tracker.objects) == 3
    for epoch, objects in enumerate(tracker.objects, 1):
        assert f"{PREFIX}/epochs/epoch-{epoch:04d}.json" in objects


def test_trackers_of_a_resumed_training_see_the_epochs_that_they_may_not_have_heard_of():
    store = InMemoryStore()
    run_epochs(CheckpointCallback(store, PREFIX), 2)
    tracker = Tracker(store)
    BackgroundWriter([CheckpointCallback(store, PREFIX), tracker]).on_train_start(new_state())
    assert tracker.resumed == 2


def test_a_store_that_fails_ends_the_training_and_keeps_the_checkpoint_before():
    store = FailingStore(3)  # the first checkpoint is two writes
    with pytest.raises(StorageError):
        run_epochs(BackgroundWriter([CheckpointCallback(store, PREFIX)]), 100)
    CheckpointCallback(store, PREFIX).on_train_start(resumed := new_state())
    assert len(resumed.history) == 1


@pytest.mark.parametrize(
    "manifest",
    [
        b"",
        b"null",
        b"[]",
        b"<html>",
        b"\xff",
        b'{"key":"p/epoch-0002.safetensors","sha256":null,"size":1}',
        b'{"key":1}',
    ],
)
def test_a_checkpoint_whose_manifest_was_altered_is_skipped(manifest):
    store = InMemoryStore()
    save_checkpoint(store, "p", 1, b"one")
    save_checkpoint(store, "p", 2, b"two")
    store.put("p/epoch-0002.safetensors", b"planted")
    store.put("p/epoch-0002.json", manifest)
    assert newest_checkpoint(store, "p") == b"one"
