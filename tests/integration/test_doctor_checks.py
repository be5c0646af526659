"""`cifar doctor` on storage and MLflow that run, and with faults put in."""

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cifar_tasks.cli.main import app
from cifar_tasks.deployment import doctor
from cifar_tasks.deployment import stack as embedded
from cifar_tasks.deployment.doctor import Deployment, Finding, Limits
from cifar_tasks.deployment.doctor.airflow_checks import FINGERPRINTS, shared_secrets
from cifar_tasks.deployment.doctor.databases import separation
from cifar_tasks.deployment.doctor.storage_checks import deleting_data
from cifar_tasks.deployment.doctor.tracking_checks import EXPERIMENT
from cifar_tasks.settings import read_settings
from cifar_tasks.storage.s3 import S3Store, sha256_hex
from cifar_tasks.tracking import runs
from tests.conftest import RunningStack, connect

ROOMY = Limits(disk_warning=0, disk_failure=0, memory_warning=0, shared_memory_warning=0)
"""Whether the machine of the test is a good one is not the question."""


@pytest.fixture
def deployment(tracked: RunningStack) -> Deployment:
    return replace(doctor.find_deployment(read_settings()), limits=ROOMY)


def findings(deployment: Deployment, *names: str) -> dict[str, Finding]:
    """What the named checks say, or all."""
    checks = [check for check in doctor.CHECKS if not names or check.name in names]
    return {result.check: result.finding for result in doctor.examine(deployment, checks)}


def command() -> tuple[int, dict[str, dict[str, str]], str]:
    """Exit status, objects by their check, and all that was printed, of `cifar doctor --json`."""
    done = CliRunner().invoke(app, ["doctor", "--json"])
    return done.exit_code, {found["check"]: found for found in json.loads(done.stdout)}, done.output


def test_a_stack_without_airflow_is_well_and_leaves_nothing_but_one_run(deployment: Deployment) -> None:
    for _ in range(2):
        found = findings(deployment)
        assert {name: finding for name, finding in found.items() if finding.verdict in ("warning", "failure")} == {}
    assert found["Airflow"] == doctor.skipped("no Airflow here: the stack was started without it; cifar up adds it")
    well = {name for name, finding in found.items() if finding.verdict == "ok"}
    assert {"PostgreSQL", "S3", "MLflow", "write and read", "conditional write", "strangers", "artifacts"} <= well
    assert {"clock of S3", "clock of MLflow", "roles", "disk", "memory", "GPU"} <= well
    assert list(S3Store(deployment.settings.bucket).keys("runs/doctor/")) == []
    client = runs.mlflow_client()
    found = client.search_runs([runs.experiment_id(client, EXPERIMENT)])
    assert [run.info.status for run in found] == ["FINISHED"]


def test_an_experiment_that_was_thrown_away_is_taken_back(deployment: Deployment) -> None:
    client = runs.mlflow_client()
    client.delete_experiment(runs.experiment_id(client, EXPERIMENT))
    assert findings(deployment, "MLflow", "artifacts")["artifacts"].verdict == "ok"


def test_the_table_says_in_words_what_is_well(tracked: RunningStack) -> None:
    done = CliRunner().invoke(app, ["doctor"], env={"COLUMNS": "100"})
    assert "an object that exists is not overwritten" in done.output
    assert "Traceback" not in done.output
    assert max(map(len, done.output.splitlines())) <= 100


def test_a_wrong_s3_key_is_named_with_its_remedy_and_not_shown(
    tracked: RunningStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "correct-horse-battery")
    status, found, output = command()
    assert status == 1
    assert found["S3"]["verdict"] == "failure"
    assert "refuses cifar" in found["S3"]["says"]
    assert "AWS_SECRET_ACCESS_KEY" in found["S3"]["remedy"]
    assert found["write and read"]["says"] == "not looked at: see S3"
    assert found["clock of S3"]["verdict"] == found["MLflow"]["verdict"] == "ok"
    assert "correct-horse-battery" not in output


def test_mlflow_that_does_not_run_is_named_with_its_remedy(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embedded.up(own_home, report=print, without=("airflow", "mlflow"))
    connect(monkeypatch, embedded.environment(own_home))
    status, found, _ = command()
    assert status == 1
    assert found["MLflow"]["verdict"] == "failure"
    assert "cifar up" in found["MLflow"]["remedy"]
    assert str(own_home / "logs" / "mlflow.log") in found["MLflow"]["remedy"]
    assert found["artifacts"]["says"] == "not looked at: see MLflow"
    assert found["S3"]["verdict"] == found["roles"]["verdict"] == "ok"

    embedded.down(own_home)
    status, found, _ = command()
    assert status == 1
    assert {found[name]["verdict"] for name in ("PostgreSQL", "S3", "MLflow", "Airflow")} == {"failure"}


@pytest.mark.parametrize(("ahead", "verdict"), [(120, "warning"), (-120, "warning"), (600, "failure")])
def test_a_clock_that_is_off_is_told_for_both_servers(deployment: Deployment, ahead: int, verdict: str) -> None:
    clocks = ("clock of S3", "clock of MLflow")
    found = findings(replace(deployment, now=lambda: time.time() + ahead), *clocks)
    for name in clocks:
        assert found[name].verdict == verdict
        assert "NTP" in found[name].remedy


def test_a_full_disk_names_the_folder_and_the_variable(deployment: Deployment) -> None:
    disk = findings(replace(deployment, limits=replace(ROOMY, disk_failure=1e18)), "disk")["disk"]
    assert disk.verdict == "failure"
    assert str(deployment.settings.home) in disk.says
    assert "CIFAR_HOME" in disk.remedy


def test_where_trainers_have_a_role_of_their_own_one_that_may_do_everything_is_told(deployment: Deployment) -> None:
    team = replace(deployment, embedded=False)
    assert deleting_data(team).verdict == "warning"
    opened = separation(team)
    assert opened.verdict == "failure"
    assert "airflow opens mlflow" in opened.says


def test_shared_secrets_are_compared_with_those_that_were_recorded(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    team, store = replace(deployment, embedded=False), S3Store(deployment.settings.bucket)
    assert "init has not recorded" in shared_secrets(team).says
    store.put(FINGERPRINTS, json.dumps({"AIRFLOW__CORE__FERNET_KEY": sha256_hex(b"the old one")}).encode())
    try:
        assert shared_secrets(team).says == "not the deployment's: AIRFLOW__CORE__FERNET_KEY"
        monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", "the old one")
        assert shared_secrets(team).verdict == "ok"
    finally:
        store.delete(FINGERPRINTS)
