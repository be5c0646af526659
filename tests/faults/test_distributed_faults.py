"""Of processes that train together none is left, whatever happens to one of them."""

import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
import pytest

from cifar_tasks.errors import ConfigError, Stopped, WorkerLost
from cifar_tasks.training import distributed
from tests.unit import ranks_of_a_test as ranks


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def test_an_error_of_ours_in_any_process_is_raised_here_with_its_message(caplog, capfd):
    with pytest.raises(ConfigError, match=r"^what is wrong$"):
        distributed.run(ranks.fail_in_the_second, 2)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert capfd.readouterr() == ("", "")


def test_a_process_that_is_killed_ends_the_others_and_may_be_tried_again(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(WorkerLost, match=r"process 1 of 2 .* by signal SIGKILL") as caught:
        distributed.run(ranks.lose_the_second, 2)
    assert caught.value.retryable
    assert not multiprocessing.active_children()
    assert not [name for name in os.listdir(tmp_path) if "torch" in name]


def test_sigterm_stops_all_processes_after_they_cleaned_up(tmp_path):
    pids: list[int] = []
    before = signal.getsignal(signal.SIGTERM)

    def stop_when_running() -> None:
        pids.extend(waiting(tmp_path))
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop_when_running).start()
    with pytest.raises(Stopped):
        distributed.run(ranks.wait, 2, folder=str(tmp_path))
    assert not [pid for pid in pids if psutil.pid_exists(pid)]
    assert len(list(tmp_path.glob("*.cleaned"))) == 2
    assert signal.getsignal(signal.SIGTERM) is before


def test_no_process_outlives_a_parent_that_was_killed(tmp_path):
    program = (
        "from cifar_tasks.training import distributed; from tests.unit import ranks_of_a_test as ranks; "
        f"distributed.run(ranks.wait, 2, folder={str(tmp_path)!r})"
    )
    parent = subprocess.Popen([sys.executable, "-c", program])
    processes = [psutil.Process(pid) for pid in waiting(tmp_path)]
    parent.kill()
    parent.wait()
    _, alive = psutil.wait_procs(processes, timeout=60)
    assert not alive


def waiting(folder: Path) -> list[int]:
    """Process ids of two that run `ranks.wait`, once they do."""
    deadline = time.monotonic() + 30
    while len(notes := os.listdir(folder)) < 2:
        assert time.monotonic() < deadline, "the processes did not start"
        time.sleep(0.05)
    return [int(name) for name in notes]
