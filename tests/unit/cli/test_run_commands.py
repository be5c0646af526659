"""What `cifar demo` and `cifar run` do about a promotion."""

import getpass
import io
import os
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from cifar_tasks.cli import run_commands
from cifar_tasks.cli.main import app
from cifar_tasks.cli.watch import Watcher
from cifar_tasks.deployment.airflow_api import Access
from cifar_tasks.errors import ConfigError, StackError
from cifar_tasks.promotion.limits import Limits
from cifar_tasks.steps.promotion_payloads import PromotionRequest
from tests.unit.cli.test_summary import PROMOTION, REPORT


class RunThatSucceeded:
    """A DAG run that is over, or waits for a person."""

    def __init__(self, client: object, run_id: str, dag_id: str = "cifar10_training") -> None:
        self.run_id, self.dag_id, self.url = run_id, dag_id, f"http://airflow/{dag_id}"

    def is_skipped(self) -> bool:
        return False

    def result(self, task: str) -> Any:
        return {"report": REPORT, "record": PROMOTION}[task].model_dump(mode="json")


@pytest.mark.parametrize("state", ["success", "awaiting_input"])
def test_a_demo_follows_the_training_and_its_promotion_until_it_waits_for_a_person(
    monkeypatch: pytest.MonkeyPatch, state: str, closed_port: int
) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))
    watched: list[str] = []

    def watch(watcher: Watcher) -> str:
        watched.append(watcher.run.dag_id)
        return state if watcher.run.dag_id == "cifar10_promotion" else "success"

    access = Access(f"http://127.0.0.1:{closed_port}", "word", {"Stop": "make down"})
    monkeypatch.setattr("cifar_tasks.deployment.airflow_api.START_SECONDS", 0)
    monkeypatch.setattr("cifar_tasks.deployment.airflow_api.access_to_deployment", lambda _: access)
    monkeypatch.setattr("cifar_tasks.deployment.airflow_api.airflow", lambda *_: nullcontext())
    monkeypatch.setattr("cifar_tasks.cli.dag_run.DagRun", RunThatSucceeded)
    monkeypatch.setattr("cifar_tasks.cli.dag_run.trigger", lambda *_: RunThatSucceeded(None, "mine"))
    monkeypatch.setattr(Watcher, "watch", watch)
    done = CliRunner().invoke(app, ["demo", "--source", "digits", "--promotion", "approve"])
    assert done.exit_code == 0, done.output
    assert done.stderr == f"Waiting for Airflow at {access.url}, up to 0 s\n"
    assert watched == ["cifar10_training", "cifar10_promotion"]
    waits = "Approve      http://airflow/cifar10_promotion/tasks/approve/required_actions"
    assert (waits in done.output) == (state == "awaiting_input")
    assert (PROMOTION.reasons[0] in done.output) == (state == "success")
    assert "Stop         make down" in done.output


def test_without_an_address_of_s3_a_demo_asks_nobody_for_the_images_of_a_line(
    monkeypatch: pytest.MonkeyPatch, closed_port: int, tmp_path: Path
) -> None:
    shell = {"CIFAR_AIRFLOW_API": f"http://127.0.0.1:{closed_port}", "CIFAR_AIRFLOW_PASSWORD": "word"}
    monkeypatch.setattr(os, "environ", shell | {"CIFAR_HOME": str(tmp_path)})
    done = CliRunner().invoke(app, ["demo", "--source", "line:products"])
    assert isinstance(done.exception, ConfigError)
    assert "there is no S3 server" in str(done.exception)


def test_a_promotion_that_fails_is_an_error_of_the_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Watcher, "watch", lambda _: "failed")
    with pytest.raises(StackError, match="the run failed; its logs are at http://airflow/cifar10_promotion"):
        run_commands._follow(RunThatSucceeded(None, "mine", "cifar10_promotion"))


@pytest.mark.parametrize(("terminal", "said", "approved"), [(True, "y", True), (True, "n", False), (False, "y", None)])
def test_a_run_without_airflow_asks_the_person_at_the_terminal_and_nobody_without_one(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, said: str, approved: bool | None
) -> None:
    asked = PromotionRequest(registered_model="mine", version=3, limits=Limits())
    proposal = SimpleNamespace(request=asked, reasons=["version 3 is better"])
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{said}\n"))
    monkeypatch.setattr(sys.stdin, "isatty", lambda: terminal, raising=False)
    answer = run_commands._ask(proposal)
    assert (answer and answer.approved) == approved
    assert answer is None or answer.by == getpass.getuser()


def test_ctrl_c_at_the_question_stops_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = PromotionRequest(registered_model="mine", version=3, limits=Limits())
    monkeypatch.setattr("sys.stdin", io.StringIO())  # its end, like Ctrl-C, aborts a question
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    with pytest.raises(KeyboardInterrupt):
        run_commands._ask(SimpleNamespace(request=asked, reasons=[]))
