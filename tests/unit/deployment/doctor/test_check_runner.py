"""Checks run beside each other, need each other, and have a remedy; no secret is shown."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cifar_tasks.deployment.doctor import CHECKS
from cifar_tasks.deployment.doctor.check_runner import (
    Check,
    Deployment,
    Finding,
    find_deployment,
    known_secrets,
    run_checks,
)
from cifar_tasks.deployment.probes import ProbeError
from cifar_tasks.deployment.stack.environment import create_secrets, environment, read_secrets
from cifar_tasks.errors import StackError
from cifar_tasks.settings import Settings
from tests.unit.deployment.doctor.deployments import COMPOSE, EMBEDDED


def fine(_deployment: Deployment) -> str:
    return "fine"


def raising(error: Exception) -> Callable[[Deployment], str]:
    def function(_deployment: Deployment) -> str:
        raise error

    return function


def test_a_check_that_breaks_stops_no_other_and_shows_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIFAR_STUDIES_URL", "postgresql://optuna:correct%20horse@host/optuna")
    broken = raising(OSError("postgresql://optuna:correct%20horse@host, that is correct horse, is not there\nmore"))
    found = run_checks(COMPOSE, [Check("A", "broken", broken), Check("A", "whole", fine)])
    message = "could not be checked: postgresql://host, that is ***, is not there"
    assert (found["broken"].status, found["broken"].message) == ("failure", message)
    assert found["whole"] == Finding("ok", "fine")


def test_an_address_is_shown_without_its_log_in_however_short(
    monkeypatch: pytest.MonkeyPatch, closed_port: int
) -> None:
    where = f"127.0.0.1:{closed_port}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://bob:a?b@{where}")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://token@{where}")
    checks = [check for check in CHECKS if check.name in ("MLflow", "S3", "Airflow")]
    found = run_checks(replace(COMPOSE, airflow_url=f"http://bob:a/b@{where}", timeout=1), checks)
    assert [f"at http://{where}" in finding.message for finding in found.values()] == [True] * 3
    assert not [finding for finding in found.values() if "bob" in finding.message or "token" in finding.message]


def test_a_remedy_shows_no_secret_and_the_password_of_airflow_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", "battery staple")
    own = replace(COMPOSE, airflow_password="correct horse")
    finding = raising(Finding("warning", "correct horse", "battery staple"))
    found = run_checks(own, [Check("A", "telling", finding)])
    assert found == {"telling": Finding("warning", "***", "***")}
    assert "correct horse" not in repr(own)


def test_passwords_of_variables_and_of_urls_are_secrets_the_longest_first() -> None:
    variables = {
        "AWS_ACCESS_KEY_ID": "trainer-of-models",
        "AWS_SECRET_ACCESS_KEY": "number-one",
        "AIRFLOW__CORE__FERNET_KEY": "number-two-is-longer",
        "BROKER": "redis://:number%20three@redis:6379/0",
        "BROKEN": "postgresql://me:num[ber-four@host/base",
        "SHORT_PASSWORD": "cifar",
    }
    found = known_secrets(variables)
    assert set(found) == {"number-one", "number-two-is-longer", "number%20three", "number three", "num[ber-four"}
    assert found[0] == "number-two-is-longer"


def test_a_check_without_its_precondition_is_skipped_with_the_reason() -> None:
    never = raising(AssertionError("was run"))
    found = run_checks(
        COMPOSE,
        [
            Check("A", "S3", raising(Finding("failure", "down", "start it"))),
            Check("A", "Redis", raising(Finding("skipped", "no Celery here"))),
            Check("A", "pool", raising(Finding("warning", "3 slots", "apply it"))),
            Check("A", "write", never, ("S3",)),
            Check("A", "queues", never, ("Redis",)),
            Check("A", "slots", fine, ("pool",)),
        ],
    )
    assert found["write"] == Finding("skipped", "see S3")
    assert found["queues"] == Finding("skipped", "no Celery here")
    assert found["slots"].status == "ok"


def test_checks_run_beside_each_other() -> None:
    def slow(_deployment: Deployment) -> str:
        time.sleep(0.4)
        return "slept"

    began = time.monotonic()
    run_checks(COMPOSE, [Check("A", f"check {number}", slow) for number in range(8)])
    assert time.monotonic() - began < 1.6


def test_a_remedy_is_the_own_one_then_that_of_the_check_then_how_to_start_the_service() -> None:
    def documented(_deployment: Deployment) -> str:
        """Apply it with:
        {restart}, and keep {secrets}"""
        raise Finding("warning", "something")

    def skipped(_deployment: Deployment) -> str:
        """Do it."""
        raise Finding("skipped", "nothing to do")

    start = raising(Finding("failure", "something"))
    checks = [
        Check("A", "own", raising(Finding("failure", "something", "repair it"))),
        Check("A", "documented", documented),
        Check("A", "started", start, services=("s3",)),
        Check("A", "skipped", skipped, services=("s3",)),
    ]
    assert [finding.remedy for finding in run_checks(EMBEDDED, checks).values()] == [
        "repair it",
        "Apply it with: cifar down, then cifar up, and keep /srv/cifar/secrets.json",
        "cifar up (first cifar down if it hangs); the reason: /srv/cifar/logs/s3.log",
        "",
    ]
    assert [finding.remedy for finding in run_checks(COMPOSE, checks).values()] == [
        "repair it",
        "Apply it with: docker compose up -d, and keep .env",
        "docker compose up -d storage (restart if it hangs); the reason: docker compose logs storage",
        "",
    ]


def test_a_service_that_does_not_answer_is_a_failure_of_the_check_that_has_it_to_start() -> None:
    gone, refuses = raising(ProbeError("does not answer")), raising(ProbeError("answers 401", "401"))
    found = run_checks(
        COMPOSE,
        [
            Check("A", "S3", gone, services=("s3",)),
            Check("A", "clock", gone),
            Check("A", "log-in", refuses),
        ],
    )
    assert [finding.status for finding in found.values()] == ["failure", "skipped", "failure"]
    assert found["clock"] == Finding("skipped", "does not answer")


@pytest.mark.parametrize("deployment", [COMPOSE, EMBEDDED])
def test_every_warning_and_every_failure_has_a_remedy(deployment: Deployment) -> None:
    for error in (Finding("warning", "x"), Finding("failure", "x"), StackError("x"), ValueError("x")):
        for each in CHECKS:

            def broken(_deployment: Deployment, error: Exception = error) -> str:
                raise error

            broken.__doc__ = each.function.__doc__
            remedy = run_checks(deployment, [replace(each, function=broken)])[each.name].remedy
            assert len(remedy) > 10
            assert "{" not in remedy


def test_every_check_comes_after_those_that_it_needs_and_areas_stay_together() -> None:
    names = [each.name for each in CHECKS]
    assert len(names) == len(set(names)) == 32
    assert all(names.index(need) < names.index(each.name) for each in CHECKS for need in each.needs)
    areas = [each.area for each in CHECKS]
    assert [area for area, before in zip(areas, ["", *areas], strict=False) if area != before] == list(
        dict.fromkeys(areas)
    )


def test_without_a_deployment_the_command_says_how_to_start_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIFAR_HOME", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(StackError, match="cifar up"):
        find_deployment(Settings())


def test_another_server_of_mlflow_is_another_deployment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    monkeypatch.setenv("CIFAR_AIRFLOW_PASSWORD", "correct horse")
    monkeypatch.setenv("CIFAR_AIRFLOW_USER", "ada")
    monkeypatch.setenv("CIFAR_AIRFLOW_API", "http://api-server:8080/")
    monkeypatch.setenv("CIFAR_AIRFLOW_URL", "http://localhost:8080")
    found = find_deployment(Settings(home=tmp_path))
    assert not found.embedded
    assert (found.airflow_url, found.airflow_password) == ("http://api-server:8080", "correct horse")
    assert found.airflow_user == "ada"


def test_the_embedded_stack_has_its_own_admin_whatever_the_shell_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_secrets(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", environment(tmp_path)["MLFLOW_TRACKING_URI"])
    monkeypatch.setenv("CIFAR_AIRFLOW_USER", "ada")
    monkeypatch.setenv("CIFAR_AIRFLOW_PASSWORD", "correct horse")
    found = find_deployment(Settings(home=tmp_path))
    assert found.embedded
    assert (found.airflow_user, found.airflow_password) == ("admin", read_secrets(tmp_path)["airflow_password"])
