"""A step in a process of its own: result, log, errors, and what is left when either side is killed."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from cifar_tasks.errors import ConfigError, PayloadError, Stopped, StorageError, WorkerLost
from cifar_tasks.evaluation.names import printable
from cifar_tasks.settings import cpu_cores
from cifar_tasks.steps.process import STEP_ENV, run_step
from tests.names import NASTY_NAMES

pytestmark = pytest.mark.timeout(120)  # seconds: a step that nobody ends would run for five minutes
STEPS = "tests.unit.steps_of_a_test"


def run(step: str, **arguments):
    return run_step(f"{STEPS}:{step}", **arguments)


def wait_for(path: Path) -> str:
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.05)
    return path.read_text()


def wait_until_gone(pids: list[int]) -> float:
    """Seconds until none of the processes runs any more."""
    began = time.monotonic()
    while any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids):
        assert time.monotonic() - began < 20, "processes are left"
        time.sleep(0.05)
    return time.monotonic() - began


def test_no_name_moves_the_cursor_of_who_reads_the_log_or_the_error():
    name = " ".join(name for name in NASTY_NAMES if name.isascii()).replace("\n", "")
    assert "\x1b" in name
    lines: list[str] = []
    with pytest.raises(ConfigError) as refusal:
        run_step(f"{STEPS}:name_what_is_wrong", lines.append, name=name)
    assert lines == [f"warned of {printable(name)}", "and went on"]
    assert str(refusal.value) == f"cannot use {printable(name)}\nrename it"


def test_the_result_comes_back_and_the_output_is_logged():
    lines: list[str] = []
    result = run("double", on_line=lines.append, number=21)
    assert result["number"] == 42
    assert lines == ["doubling"]


def test_what_a_library_writes_in_another_encoding_does_not_end_the_step():
    lines: list[str] = []
    assert run("write_latin_1", on_line=lines.append) == "done"
    assert lines == ["libfoo: caf\\xe9.jpg"]


def test_values_arrive_typed_and_go_back_as_json():
    assert run("add", numbers={"label": "a", "values": [1, 2]}, factor=2) == {"label": "a", "values": [6]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"numbers": {"label": "a"}}, r"steps_of_a_test:add .*numbers\.values: Field required"),
        ({"numbers": {"label": "a", "values": [1], "more": 1}}, r"add .*numbers\.more: Extra inputs"),
        ({"numbers": {"label": "a", "values": ["1"]}}, r"add .*numbers\.values\.0: Input should be a valid integer"),
        ({"numbers": {"label": "a", "values": [1]}, "other": 1}, r"add .*other: Extra inputs"),
        ({}, r"add .*numbers: Field required"),
    ],
)
def test_a_field_that_is_missing_unknown_or_of_another_type_is_an_error_that_names_step_and_field(arguments, message):
    with pytest.raises(PayloadError, match=message) as caught:
        run("add", **arguments)
    assert not caught.value.retryable


def test_a_step_that_returns_something_else_than_it_promises_is_an_error():
    with pytest.raises(PayloadError, match=r"promise_text returned .*valid string"):
        run("promise_text")


def test_a_result_larger_than_a_pipe_s_buffer_comes_back():
    assert run("repeat", letter="x", times=1_000_000) == "x" * 1_000_000


def test_the_step_leads_a_process_group_of_its_own_with_a_tuned_environment():
    result = run("double", number=1)
    assert result["pid"] == result["group"] != os.getpgid(0)
    assert result["waiting"] == "PASSIVE"


@pytest.mark.parametrize(
    ("slots", "given", "threads"), [("1", None, 1.0), ("2", None, 0.5), ("1000", None, 0), ("2", "7", 7)]
)
def test_steps_that_run_at_the_same_time_share_the_cores(monkeypatch, slots, given, threads):
    monkeypatch.setenv("CIFAR_GPU_SLOTS", slots)
    monkeypatch.delenv("OMP_NUM_THREADS")
    if given:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    share = threads if given else max(1, int(cpu_cores() * threads))
    assert run("double", number=1)["threads"] == str(share)


@pytest.mark.parametrize(("kind", "error"), [("config", ConfigError), ("storage", StorageError)])
def test_an_error_of_ours_is_raised_again_with_its_message(kind, error):
    with pytest.raises(error, match="what is wrong"):
        run("fail", kind=kind)


def test_any_other_error_leaves_its_traceback_in_the_log_and_may_be_tried_again():
    lines: list[str] = []
    with pytest.raises(WorkerLost, match="exit status 1") as caught:
        run("fail", on_line=lines.append, kind="bug")
    assert "ZeroDivisionError: what is wrong" in lines
    assert caught.value.retryable


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGUSR1])  # `nohup` ignores SIGHUP
def test_a_killed_step_is_told_from_a_failed_one(number):
    with pytest.raises(WorkerLost, match=f"ended by signal {number.name} and left no result"):
        run("die", number=int(number))


@pytest.mark.parametrize("code", [0, 3])
def test_a_step_that_leaves_its_process_has_lost_its_result(code):
    with pytest.raises(WorkerLost, match=f"ended with exit status {code} and left no result"):
        run("leave", code=code)


def test_a_command_begins_again_with_its_arguments_in_the_environment_of_a_step_once(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import os, sys\n"
        "from cifar_tasks.steps.process import STEP_ENV, restart_in_step_environment\n"
        "print(os.getpid(), flush=True)\n"
        "restart_in_step_environment()\n"
        "print(sys.argv[1:], STEP_ENV.items() <= os.environ.items(), flush=True)\n"
    )
    plain = {name: value for name, value in os.environ.items() if name not in STEP_ENV}
    command = [sys.executable, program, "--some", "value"]
    for environment, times in ((plain, 2), (plain | STEP_ENV, 1)):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
        *pids, last = done.stdout.splitlines()
        assert (len(pids), len(set(pids)), last) == (times, 1, "['--some', 'value'] True")


def stop_this_process_when(note: Path) -> None:
    """SIGTERM as soon as the step has written the note."""

    def stop() -> None:
        wait_for(note)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop).start()


def test_sigterm_reaches_the_step_and_leaves_no_process(tmp_path):
    note = tmp_path / "pids"

    stop_this_process_when(note)
    with pytest.raises(Stopped):
        run("wait_with_child", note=str(note))
    wait_until_gone([int(pid) for pid in note.read_text().split()])
    assert (tmp_path / "pids.cleaned").exists()


def test_a_stopped_step_leaves_no_temporary_folder(tmp_path):
    note = tmp_path / "folder"

    stop_this_process_when(note)
    with pytest.raises(Stopped):
        run("read_archive", note=str(note))
    assert not Path(note.read_text()).exists()


def test_what_a_step_has_started_does_not_outlive_it():
    wait_until_gone([run("leave_child")])


def test_a_step_that_ignores_sigterm_is_killed_when_its_parent_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr("cifar_tasks.steps.process.GRACE_SECONDS", 0.5)
    note = tmp_path / "pid"

    stop_this_process_when(note)
    with pytest.raises(Stopped):
        run("ignore_sigterm", note=str(note))
    wait_until_gone([int(note.read_text())])


def test_a_step_that_ignores_sigterm_is_killed_when_its_parent_gives_up(tmp_path, monkeypatch):
    monkeypatch.setattr("cifar_tasks.steps.process.GRACE_SECONDS", 0.5)
    note = tmp_path / "pid"

    def give_up(line: str) -> None:
        raise InterruptedError(line)

    with pytest.raises(InterruptedError, match="ignoring"):
        run_step(f"{STEPS}:ignore_sigterm", on_line=give_up, note=str(note))
    wait_until_gone([int(note.read_text())])


def test_a_step_does_not_outlive_a_parent_that_was_killed(tmp_path):
    note = tmp_path / "pids"
    program = f"from cifar_tasks.steps.process import run_step; run_step('{STEPS}:wait_with_child', note='{note}')"
    parent = subprocess.Popen([sys.executable, "-c", program])
    pids = [int(pid) for pid in wait_for(note).split()]
    parent.kill()
    parent.wait()
    assert wait_until_gone(pids[:1]) < 10
    assert (tmp_path / "pids.cleaned").exists()
    wait_until_gone(pids)


def test_a_step_that_nobody_waits_for_outlives_the_process_that_started_it(tmp_path):
    note = tmp_path / "done"
    program = f"from cifar_tasks.steps.process import start_step; start_step('{STEPS}:write_later', note='{note}')"
    subprocess.run([sys.executable, "-c", program], check=True)
    assert not note.exists()
    wait_for(note)


@pytest.mark.parametrize("size", [65_000, 5_000_000])
def test_arguments_larger_than_a_pipe_s_buffer_reach_the_step(size):
    assert run("count", text="x" * size) == size


def test_a_step_whose_child_keeps_its_output_open_does_not_hang():
    began = time.monotonic()
    assert run("leave_a_child", seconds=300) == "done"
    assert time.monotonic() - began < 30
