"""Callbacks are called in order, to the end, and what is written beside the training is whole and never lost."""

import logging
import threading

import pytest
import torch

from cifar_tasks.config import with_values
from cifar_tasks.errors import StorageError
from cifar_tasks.models import get_model
from cifar_tasks.training import loop
from cifar_tasks.training.callbacks import BackgroundWriter, Callback, LogProgress, Progress, Snapshot
from cifar_tasks.training.loop import Split, fit
from cifar_tasks.training.state import EpochMetrics, TrainingState

CONFIG = with_values(get_model("cnn").recipes["demo"], {"epochs": 5, "batch_size": 4, "flip": False, "crop_padding": 0})
SPLIT = Split(torch.rand(8, 2), torch.arange(8) % 2)


def state(label: str = "", **changes) -> TrainingState:
    torch.manual_seed(0)
    return TrainingState(torch.nn.Linear(2, 2), with_values(CONFIG, changes), 2, label)


class Notes(Callback):
    """Keeps what it is told, and fails where it is told to."""

    def __init__(self, log: list[str], name: str = "", fails_at: str = "") -> None:
        self.log, self.name, self.fails_at = log, name, fails_at

    def note(self, what: str) -> None:
        self.log.append(f"{self.name}{what}")
        if what == self.fails_at:
            raise StorageError(f"{self.name}failed")

    def on_train_start(self, state: TrainingState) -> None:
        self.note("start")

    def on_step(self, progress: Progress) -> None:
        self.note(f"step {progress.step}")

    def on_epoch_end(self, snapshot: Snapshot) -> None:
        self.note(f"epoch {len(snapshot.history)}")

    def on_train_end(self, state: TrainingState, error: BaseException | None) -> None:
        self.note(f"end {type(error).__name__}" if error else "end")


def test_every_callback_hears_of_everything_in_the_given_order(monkeypatch):
    monkeypatch.setattr(loop, "LOG_SECONDS", 0.0)
    log: list[str] = []
    fit(state(epochs=1), SPLIT, SPLIT, [Notes(log, "a "), Notes(log, "b ")])
    told = ["start", "step 1", "step 2", "epoch 1", "end"]
    assert log == [f"{name} {what}" for what in told for name in "ab"]


def test_at_the_end_the_best_weights_are_back():
    seen = []

    class AtTheEnd(Callback):
        def on_train_end(self, state: TrainingState, error: BaseException | None) -> None:
            seen.extend(torch.equal(state.best_weights[k], v) for k, v in state.model.state_dict().items())

    # The loss only rises: the first epoch stays the best.
    fit(state(learning_rate=1e3, patience=2), SPLIT, SPLIT, [AtTheEnd()])
    assert seen
    assert all(seen)


@pytest.mark.parametrize(
    ("fails_at", "expected"),
    [
        ("start", ["a start", "b start", "a end StorageError"]),
        ("step 2", ["a start", "b start", "a step 2", "b step 2", "a end StorageError", "b end StorageError"]),
        ("end", ["a start", "b start", "a step 2", "b step 2", "a epoch 1", "b epoch 1", "a end", "b end"]),
    ],
)
def test_an_error_reaches_every_callback_that_was_started_and_leaves_fit(fails_at, expected):
    log: list[str] = []
    callbacks = [Notes(log, "a "), Notes(log, "b ", fails_at)]
    with pytest.raises(StorageError, match="b failed"):
        fit(state(epochs=1), SPLIT, SPLIT, callbacks)
    assert log == expected


def test_an_error_at_the_end_is_told_to_those_that_follow():
    log: list[str] = []
    with pytest.raises(StorageError, match="a failed"):
        fit(state(epochs=1), SPLIT, SPLIT, [Notes(log, "a ", "end"), Notes(log, "b ")])
    assert log[-2:] == ["a end", "b end StorageError"]


def test_the_first_error_is_raised_and_a_later_one_logged(caplog):
    log: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        fit(state(), SPLIT, SPLIT, [Notes(log, "a ", "end KeyboardInterrupt"), Interrupt()])
    assert "Notes failed as well: a failed" in caplog.text


class Interrupt(Callback):
    """As Optuna prunes a trial: an exception of its own ends the training after the first epoch."""

    def on_epoch_end(self, snapshot: Snapshot) -> None:
        raise KeyboardInterrupt


def test_a_snapshot_is_the_training_at_the_end_of_its_epoch():
    snapshots: list[Snapshot] = []

    class Keep(Callback):
        def on_epoch_end(self, snapshot: Snapshot) -> None:
            assert snapshot.checkpoint is snapshot.checkpoint
            snapshots.append(snapshot)

    whole = state("head_", epochs=2)
    fit(whole, SPLIT, SPLIT, [Keep()])
    first, last = snapshots
    assert (first.label, len(first.history), first.finished) == ("head_", 1, False)
    assert (len(last.history), last.finished, last.best) == (2, True, whole.best)
    resumed = state("head_", epochs=2)
    resumed.load_bytes(first.checkpoint)
    assert resumed.history == list(first.history)
    fit(resumed, SPLIT, SPLIT)
    assert torch.equal(resumed.model.weight, whole.model.weight)


def test_a_checkpoint_cannot_be_taken_of_an_epoch_that_is_long_over():
    snapshots: list[Snapshot] = []

    class Late(Callback):
        def on_epoch_end(self, snapshot: Snapshot) -> None:
            snapshots.append(snapshot)

        def on_step(self, progress: Progress) -> None:
            for snapshot in snapshots:
                _ = snapshot.checkpoint

    with pytest.raises(RuntimeError, match="after training had continued"):
        fit(state(), SPLIT, SPLIT, [Late()])


def test_the_log_has_a_line_for_each_interval_and_each_epoch(caplog):
    with caplog.at_level(logging.INFO):
        fit(state("head_", epochs=1), SPLIT, SPLIT, [LogProgress()])
    step, epoch = (record.getMessage() for record in caplog.records)
    assert step.startswith("head_epoch 1 100 %  loss ")
    assert epoch.startswith("head_epoch 1/1  train loss ")
    assert "validation loss" in epoch


def test_the_line_of_an_epoch_has_the_figures_of_the_last_one_in_percent(caplog):
    trained = state(epochs=3)
    trained.record(EpochMetrics(1, 2.0, 0.25, 2.5, 0.125, 0.1, 50.0))
    trained.record(EpochMetrics(2, 1.0, 0.5, 1.5, 0.375, 0.1, 100.4))
    with caplog.at_level(logging.INFO):
        LogProgress().on_epoch_end(Snapshot.of(trained))
    assert caplog.messages == [
        "epoch 2/3  train loss 1.0000 acc 50.00 %  validation loss 1.5000 acc 37.50 %  100 images/s"
    ]


class Slow(Callback):
    """Writes nothing until it is let."""

    def __init__(self) -> None:
        self.may_write = threading.Event()
        self.written: list[tuple[int, bytes, str]] = []

    def on_epoch_end(self, snapshot: Snapshot) -> None:
        assert self.may_write.wait(10)
        self.written.append((len(snapshot.history), snapshot.checkpoint, threading.current_thread().name))


def run_epochs(writer: Callback, epochs: int, ending: BaseException | None = None) -> TrainingState:
    """A training of so many epochs, without the training; it may end badly."""
    trained = state()
    writer.on_train_start(trained)
    error: BaseException | None = None
    try:
        for _ in range(epochs):
            train_an_epoch(trained)
            writer.on_epoch_end(Snapshot.of(trained))
        if ending:
            raise ending
    except BaseException as raised:
        error = raised
    writer.on_train_end(trained, error)
    return trained


def train_an_epoch(state: TrainingState) -> None:
    with torch.no_grad():
        for parameter in state.model.parameters():
            parameter += 1
    epoch = len(state.history) + 1
    state.record(EpochMetrics(epoch, 1.0, 0.5, 1.0 / epoch, 0.5, 0.1, 100.0))


def test_writing_does_not_hold_up_the_training_and_keeps_the_state_of_its_epoch():
    slow, trained = Slow(), state()
    writer = BackgroundWriter([slow])
    writer.on_train_start(trained)
    train_an_epoch(trained)
    weights = trained.model.state_dict()["weight"].clone()
    writer.on_epoch_end(Snapshot.of(trained))  # returns although nothing can be written
    train_an_epoch(trained)
    assert not slow.written
    slow.may_write.set()
    writer.on_train_end(trained, None)
    ((epoch, checkpoint, thread),) = slow.written
    resumed = state()
    resumed.load_bytes(checkpoint)
    assert epoch == len(resumed.history) == 1
    assert torch.equal(resumed.model.state_dict()["weight"], weights)
    assert thread != threading.current_thread().name


def test_at_most_one_epoch_waits():
    slow, trained = Slow(), state()
    writer = BackgroundWriter([slow])
    writer.on_train_start(trained)
    train_an_epoch(trained)
    writer.on_epoch_end(Snapshot.of(trained))
    threading.Timer(0.3, slow.may_write.set).start()
    train_an_epoch(trained)
    writer.on_epoch_end(Snapshot.of(trained))
    assert [epoch for epoch, *_ in slow.written][:1] == [1]
    writer.on_train_end(trained, None)
    assert [epoch for epoch, *_ in slow.written] == [1, 2]


def test_the_second_callback_hears_of_an_epoch_only_when_the_first_is_done_with_it():
    log: list[str] = []
    run_epochs(BackgroundWriter([Notes(log, "a "), Notes(log, "b ")]), 2)
    told = ["start", "epoch 1", "epoch 2", "end"]
    assert log == [f"{name} {what}" for what in told for name in "ab"]


def test_a_failed_write_ends_the_training_an_epoch_later():
    log: list[str] = []
    writer = BackgroundWriter([Notes(log, "a ", "epoch 2"), Notes(log, "b ")])
    with pytest.raises(StorageError):
        run_epochs(writer, 100)
    assert log == [
        "a start",
        "b start",
        "a epoch 1",
        "b epoch 1",
        "a epoch 2",
        "a end StorageError",
        "b end StorageError",
    ]


def test_a_failed_last_write_is_not_lost():
    log: list[str] = []
    with pytest.raises(StorageError):
        run_epochs(BackgroundWriter([Notes(log, fails_at="epoch 1")]), 1)
    assert log[-1] == "end StorageError"


@pytest.mark.parametrize("ending", [KeyboardInterrupt(), None])
def test_the_end_waits_for_what_is_being_written_also_after_sigterm(ending):
    slow = Slow()
    threading.Timer(0.3, slow.may_write.set).start()
    if ending:
        with pytest.raises(KeyboardInterrupt):
            run_epochs(BackgroundWriter([slow]), 1, ending)
    else:
        run_epochs(BackgroundWriter([slow]), 1)
    assert [epoch for epoch, *_ in slow.written] == [1]


def test_a_callback_that_does_not_start_ends_those_that_did():
    log: list[str] = []
    writer = BackgroundWriter([Notes(log, "a "), Notes(log, "b ", "start")])
    with pytest.raises(StorageError):
        fit(state(), SPLIT, SPLIT, [Notes(log, "log "), writer])
    assert log == ["log start", "a start", "b start", "a end StorageError", "log end StorageError"]
