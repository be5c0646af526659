import time

import pytest

from cifar_tasks.data import progress as module
from cifar_tasks.data.progress import progress


def test_the_newest_state_is_reported_again_and_again_until_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REPORT_SECONDS", 0.02)
    lines: list[str] = []
    done = 0
    with progress(lines.append, lambda: f"{done} done"):
        while len(lines) < 2:
            time.sleep(0.005)
        done = 7
        while lines[-1] != "7 done":
            time.sleep(0.005)
    count = len(lines)
    time.sleep(0.1)
    assert lines[0] == "0 done"
    assert len(lines) == count


def test_work_that_is_quick_reports_nothing_and_errors_pass() -> None:
    lines: list[str] = []
    with pytest.raises(ValueError, match="mine"), progress(lines.append, lambda: "working"):
        raise ValueError("mine")
    assert lines == []


def test_a_line_comes_every_five_seconds() -> None:
    assert module.REPORT_SECONDS <= 5
