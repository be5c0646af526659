"""What `cifar status` and `cifar doctor` print, in a terminal and in a pipe."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from cifar_tasks.cli.main import app
from cifar_tasks.cli.stack_commands import print_findings
from cifar_tasks.deployment.doctor import CHECKS
from cifar_tasks.deployment.doctor.check_runner import Check, Finding
from cifar_tasks.deployment.stack.environment import create_secrets

BOXES = set("─━│┃┏┌╭└╰")
RESULTS = [
    (Check("Services", "PostgreSQL", str), Finding("ok", "version 17.5")),
    (
        Check("Services", "MLflow", str),
        Finding("failure", "does not answer at [b]http://mlflow:5000", "start [mlflow]"),
    ),
    (Check("This machine", "disk", str), Finding("warning", f"7 GB free at /srv/{'cifar/' * 30}", "Delete it.")),
]


@pytest.fixture
def nowhere(closed_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of the servers of a deployment that does not run."""
    address = f"http://127.0.0.1:{closed_port}"
    for name in ("MLFLOW_TRACKING_URI", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.setenv(name, address)
    monkeypatch.setenv("CIFAR_HOME", str(tmp_path))
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    return address


def printed(terminal: bool, width: int = 140) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system=None)
    print_findings(console, RESULTS)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_a_terminal_shows_areas_and_remedies_in_at_most_100_columns():
    lines = printed(terminal=True)
    assert max(map(len, lines)) <= 100
    assert [line for line in lines if not line.startswith(" ")] == ["Services", "This machine", lines[-1]]
    assert any(" ".join(line.split()) == "failure MLflow does not answer at [b]http://mlflow:5000" for line in lines)
    assert any(line.strip() == "→ start [mlflow]" for line in lines)
    assert lines[-1] == "1 ok, 1 failure, 1 warning"


def test_a_pipe_gets_one_line_per_check_with_its_remedy_whatever_the_width():
    header, *lines, counts = printed(terminal=False, width=40)
    assert header.split() == ["status", "area", "check", "message"]
    assert [line.split()[0] for line in lines] == ["ok", "failure", "warning"]
    assert lines[1].endswith("MLflow      does not answer at [b]http://mlflow:5000 → start [mlflow]")
    assert lines[2].endswith("cifar/ → Delete it.")
    assert not BOXES & set("".join(lines))
    assert counts == "1 ok, 1 failure, 1 warning"


def test_the_doctor_in_a_pipe_is_plain_text_and_its_exit_status_tells_a_failure(nowhere: str):
    done = CliRunner().invoke(app, ["doctor"], env={"COLUMNS": "60"})
    assert done.exit_code == 1
    lines = done.stdout.splitlines()
    assert len(lines) == len(CHECKS) + 2
    (mlflow,) = [line for line in lines if line.split()[:3] == ["failure", "Services", "MLflow"]]
    assert f"does not answer at {nowhere} → docker compose up -d mlflow" in mlflow
    assert any(line.split() == ["skipped", "Tracking", "artifacts", "see", "MLflow"] for line in lines)
    failures = [line for line in lines if line.startswith("failure")]
    # Whether the machine of the test is a good one is not the question.
    services = [line.split()[2] for line in failures if "This machine" not in line]
    assert services == ["PostgreSQL", "S3", "MLflow"], failures
    assert f"{len(failures)} failure" in lines[-1]
    assert not {"\x1b", *BOXES} & set(done.stdout)


def test_the_json_of_the_doctor_has_an_object_per_check(nowhere: str):
    found = json.loads(CliRunner().invoke(app, ["doctor", "--json"]).stdout)
    assert [each["check"] for each in found] == [check.name for check in CHECKS]
    assert all(each.keys() == {"area", "check", "status", "message", "remedy"} for each in found)


@pytest.mark.parametrize(
    ("command", "status", "said"),
    [("status", 1, "There is no embedded stack in {}. Start one: cifar up"), ("down", 0, "Nothing was running in {}.")],
)
def test_where_there_is_no_stack_the_folder_is_named(nowhere: str, tmp_path: Path, command, status, said):
    done = CliRunner().invoke(app, [command])
    assert (done.exit_code, done.stdout.strip()) == (status, said.format(tmp_path))


def test_the_status_in_a_pipe_is_plain_text_and_its_exit_status_tells_that_a_service_is_missing(
    nowhere: str, tmp_path: Path
):
    create_secrets(tmp_path)
    done = CliRunner().invoke(app, ["status"], env={"COLUMNS": "40"})
    assert done.exit_code == 1
    header, *lines, hint = done.stdout.splitlines()
    assert header.split() == ["service", "state", "process", "responds", "address"]
    assert ["s3", "stopped", "–", "no"] in [line.split()[:4] for line in lines]
    assert not {"\x1b", *BOXES} & set(done.stdout)
    assert "cifar up" in hint
