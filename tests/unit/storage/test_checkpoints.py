"""Checkpoints in storage: the newest two, whole or not at all."""

import logging

import pytest

from cifar_tasks.errors import StorageError
from cifar_tasks.storage.checkpoints import forget_checkpoints, newest_checkpoint, save_checkpoint
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
def test_a_damaged_newest_one_is_passed_over_with_a_warning(suffix, caplog):
    store = InMemoryStore()
    save_checkpoint(store, PREFIX, 1, b"good")
    save_checkpoint(store, PREFIX, 2, b"better")
    store.put(f"{PREFIX}/epoch-0002.{suffix}", b"{")
    with caplog.at_level(logging.WARNING):
        assert newest_checkpoint(store, PREFIX) == b"good"
    assert "epoch-0002" in caplog.text


@pytest.mark.parametrize("write", [1, 2])
def test_a_write_that_breaks_off_leaves_the_one_before(write, caplog):
    store = FailingStore(2 + write)  # the first checkpoint is two writes
    save_checkpoint(store, PREFIX, 1, b"good")
    with pytest.raises(StorageError):
        save_checkpoint(store, PREFIX, 2, b"better")
    assert newest_checkpoint(store, PREFIX) == b"good"
    assert ("broken off" in caplog.text) == (write == 2)


def test_checkpoints_of_another_run_are_left_alone():
    store = InMemoryStore()
    save_checkpoint(store, PREFIX, 1, b"mine")
    save_checkpoint(store, "runs/other/checkpoints", 1, b"theirs")
    forget_checkpoints(store, PREFIX)
    assert newest_checkpoint(store, PREFIX) is None
    assert newest_checkpoint(store, "runs/other/checkpoints") == b"theirs"
