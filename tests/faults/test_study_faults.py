"""Trials of a shared study that are interrupted, and one that only takes long."""

import threading
import time

import pytest

from cifar_tasks.errors import Stopped, TrackingError
from cifar_tasks.tuning.study import count_ended, create_study, load_study, optimize
from tests.faults.test_shared_study import at_once, failing, objective, states
from tests.waiting import wait_until


@pytest.fixture
def short_heartbeat(tracked, monkeypatch):
    """A trial is lost after three seconds."""
    monkeypatch.setenv("CIFAR_TRIAL_HEARTBEAT", "1")


def test_an_interrupted_trial_ends_its_worker_and_is_retried_when_its_heartbeat_is_missing(short_heartbeat):
    errors = [TrackingError("MLflow is away"), KeyboardInterrupt(), Stopped()]
    for error in errors:
        with pytest.raises(type(error)):
            optimize(create_study(f"interrupted-{type(error).__name__}"), objective(failing(error)), 2)
    time.sleep(3.5)
    for error in errors:
        study = load_study(f"interrupted-{type(error).__name__}")
        assert (states(study), count_ended(study)) == (["RUNNING"], 0)
        assert optimize(study, at_once, 2) == 2
        assert states(study) == ["FAIL", "COMPLETE", "COMPLETE"]
        assert study.trials[1].params == study.trials[0].params


def test_a_long_trial_keeps_its_worker(short_heartbeat):
    create_study("long")
    ended = threading.Event()
    slow = threading.Thread(target=lambda: optimize(load_study("long", 1), objective(lambda _: ended.wait(120)), 1))
    slow.start()
    wait_until(lambda: states(load_study("long")) == ["RUNNING"])
    time.sleep(4)  # longer than a heartbeat may be missing
    assert optimize(load_study("long", 2), at_once, 1) == 1
    assert states(load_study("long"))[0] == "RUNNING"
    ended.set()
    slow.join()
    assert states(load_study("long")) == ["COMPLETE", "COMPLETE"]
