"""The doctor's verdicts, given facts."""

import io
import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from cifar_tasks.deployment import doctor
from cifar_tasks.deployment.doctor import Check, Deployment, Finding, Limits, Result
from cifar_tasks.deployment.doctor.airflow_checks import judge_pool, judge_shared_secrets
from cifar_tasks.deployment.doctor.databases import databases, judge_separation, refusal
from cifar_tasks.deployment.doctor.deployment import known_secrets
from cifar_tasks.deployment.doctor.machine import judge_disk, judge_gpu, judge_memory, judge_shared_memory
from cifar_tasks.deployment.doctor.service_checks import (
    judge_airflow_parts,
    judge_postgres,
    judge_s3_refusal,
    judge_version,
)
from cifar_tasks.deployment.doctor.storage_checks import clock_difference, judge_clock, judge_deleting
from cifar_tasks.deployment.doctor.workers import judge_gpu_slots, judge_queues, judge_redelivery
from cifar_tasks.settings import Settings
from cifar_tasks.storage.s3 import sha256_hex

COMPOSE = Deployment(Settings(gpu_slots=2), embedded=False)
EMBEDDED = Deployment(Settings(home=Path("/srv/cifar"), gpu_slots=2), embedded=True)
DAY = 86_400.0
HEALTHY = {"status": "healthy"}


@pytest.mark.parametrize(("number", "verdict"), [(120022, "failure"), (130000, "ok"), (180001, "ok")])
def test_a_postgresql_that_airflow_does_not_support_is_a_failure(number: int, verdict: str) -> None:
    assert judge_postgres(number).verdict == verdict


def test_another_version_than_the_installed_one_is_a_warning() -> None:
    assert judge_version("version 3.3.2", "3.3.2", "3.3.2").verdict == "ok"
    assert judge_version("version 3.3.1", "3.3.1", "3.3.2") == Finding(
        "warning", "version 3.3.1; here 3.3.2 is installed", judge_version("", "1", "2").remedy
    )


def test_each_part_of_airflow_without_a_heartbeat_is_named_as_its_stack_calls_it() -> None:
    health = {"scheduler": HEALTHY, "dag_processor": {"status": "unhealthy"}, "triggerer": None}
    compose, embedded = judge_airflow_parts(health, COMPOSE), judge_airflow_parts(health, EMBEDDED)
    assert compose.verdict == embedded.verdict == "failure"
    assert compose.says == "without a heartbeat: dag-processor, triggerer"
    assert "docker compose up -d dag-processor triggerer" in compose.remedy
    assert "/srv/cifar/logs/airflow-dag-processor.log" in embedded.remedy
    assert judge_airflow_parts(dict.fromkeys(("scheduler", "dag_processor", "triggerer"), HEALTHY), COMPOSE) == Finding(
        "ok", "scheduler, dag-processor and triggerer have a heartbeat"
    )


@pytest.mark.parametrize(
    ("code", "word"),
    [("NoSuchBucket", "no bucket"), ("RequestTimeTooSkewed", "clocks"), ("SignatureDoesNotMatch", "refuses trainer")],
)
def test_a_refusal_of_s3_is_told_by_its_cause(code: str, word: str) -> None:
    finding = judge_s3_refusal(code, COMPOSE, "http://storage:8333", "trainer")
    assert finding.verdict == "failure"
    assert word in finding.says


@pytest.mark.parametrize(
    ("ahead", "verdict"),
    [(0, "ok"), (29, "ok"), (31, "warning"), (-31, "warning"), (299, "warning"), (-301, "failure")],
)
def test_clocks_may_differ_by_half_a_minute_and_fail_at_five(ahead: float, verdict: str) -> None:
    assert judge_clock(ahead, Limits()).verdict == verdict


@pytest.mark.parametrize(
    ("here", "ahead"), [(1000.0, 0.0), (1000.9, 0.0), (1001.5, 0.5), (1120.0, 119.0), (998.0, -2.0)]
)
def test_whole_seconds_of_a_date_header_are_no_difference(here: float, ahead: float) -> None:
    assert clock_difference(lambda: here, lambda: "Thu, 01 Jan 1970 00:16:40 GMT") == pytest.approx(ahead)


def test_only_the_trainer_of_the_deployment_must_not_delete() -> None:
    assert judge_deleting("trainer").verdict == "failure"
    assert judge_deleting("AKIA123").verdict == "warning"


def test_every_spelling_of_a_database_url_is_one_that_libpq_reads() -> None:
    variables = {
        "AIRFLOW__CELERY__RESULT_BACKEND": "db+postgresql+psycopg2://celery:word@host/celery",
        "CIFAR_STUDIES_URL": "postgres://optuna:word@host/optuna",
        "MLFLOW_BACKEND_STORE_URI": "sqlite:///mlflow.db",
    }
    assert databases(variables) == {
        "celery": "postgresql://celery:word@host/celery",
        "optuna": "postgresql://optuna:word@host/optuna",
    }


def test_a_role_that_opens_another_database_is_named() -> None:
    closed = 'FATAL:  permission denied for database "celery"'
    assert judge_separation({("airflow", "celery"): closed}).verdict == "ok"
    opened = judge_separation({("airflow", "celery"): closed, ("optuna", "mlflow"): None})
    assert (opened.verdict, opened.says) == ("failure", "roles see what is not theirs: optuna opens mlflow")
    unclear = judge_separation({("airflow", "celery"): "FATAL:  sorry, too many clients already"})
    assert unclear.verdict == "warning"


def test_of_a_refusal_of_postgresql_only_the_reason_is_kept() -> None:
    said = 'connection to server at "h" (10.0.0.2), port 5432 failed: FATAL:  role "x" does not exist\nmore'
    assert refusal(Exception(said)) == 'role "x" does not exist'


def test_the_shared_secret_that_differs_is_named_and_not_shown() -> None:
    recorded = {"JWT": sha256_hex(b"correct horse"), "FERNET": sha256_hex(b"battery staple")}
    assert judge_shared_secrets(recorded, {"JWT": "correct horse", "FERNET": "battery staple"}).verdict == "ok"
    other = judge_shared_secrets(recorded, {"JWT": "correct horse", "FERNET": "something else"})
    assert (other.verdict, other.says) == ("failure", "not the deployment's: FERNET")
    assert "something else" not in other.remedy
    assert judge_shared_secrets(recorded, {"JWT": "correct horse"}).says == "not set here: FERNET"


@pytest.mark.parametrize(("slots", "verdict"), [(2, "ok"), (3, "warning"), (None, "failure")])
def test_the_pool_has_the_slots_of_the_settings(slots: int | None, verdict: str) -> None:
    assert judge_pool(slots, COMPOSE).verdict == verdict


def test_a_queue_that_no_worker_consumes_is_a_failure() -> None:
    both = {"default@a": [{"name": "default"}], "gpu@b": [{"name": "gpu"}], "gpu@c": [{"name": "gpu"}]}
    assert judge_queues(both) == Finding("ok", "1 on default, 2 on gpu")
    alone = judge_queues({"default@a": [{"name": "default"}]})
    assert alone.verdict == "failure"
    assert "queue gpu" in alone.says
    assert "docker compose up -d gpu-worker" in alone.remedy
    assert "default and gpu" in judge_queues({}).says


def test_slots_without_workers_and_workers_without_slots_are_a_warning_that_names_the_variable() -> None:
    assert judge_gpu_slots(2, [1, 1]).verdict == "ok"
    for slots in (1, 3):
        finding = judge_gpu_slots(slots, [1, 1])
        assert finding.verdict == "warning"
        assert "CIFAR_GPU_SLOTS" in finding.remedy


def test_a_broker_must_wait_longer_than_work_and_waiting_together() -> None:
    assert judge_redelivery(3 * DAY, DAY, DAY).verdict == "ok"
    short = judge_redelivery(2 * DAY, DAY, DAY)
    assert short.verdict == "failure"
    assert "VISIBILITY_TIMEOUT" in short.remedy
    assert "172800" in short.remedy


@pytest.mark.parametrize(("free", "verdict"), [(11e9, "ok"), (9e9, "warning"), (1e9, "failure")])
def test_a_full_disk_is_a_failure_and_a_filling_one_a_warning(free: float, verdict: str) -> None:
    finding = judge_disk(free, Path("/data"), Limits())
    assert finding.verdict == verdict
    assert "/data" in finding.says


def test_too_little_memory_is_a_warning() -> None:
    assert judge_memory(5e9, 8e9, Limits()).verdict == "ok"
    assert judge_memory(3e9, 8e9, Limits()).verdict == "warning"
    assert judge_shared_memory(2e9, Limits()).verdict == "ok"
    assert judge_shared_memory(64e6, Limits()).verdict == "warning"


def test_a_driver_without_a_gpu_in_torch_is_a_warning_and_no_gpu_at_all_is_well() -> None:
    none = {"torch": "2.14.1", "cuda": "13.0", "driver": None, "gpus": []}
    assert judge_gpu(none, driver_is_here=False).verdict == "ok"
    assert judge_gpu(none, driver_is_here=True).verdict == "warning"
    two = none | {"driver": 13020, "gpus": [["NVIDIA H100", 80 * 2**30]] * 2}
    assert judge_gpu(two, driver_is_here=True).says == (
        "NVIDIA H100 (80 GiB), NVIDIA H100 (80 GiB), driver for CUDA 13.2, torch 2.14.1"
    )


def test_a_check_that_breaks_stops_no_other_and_shows_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIFAR_STUDIES_URL", "postgresql://optuna:correct%20horse@host/optuna")

    def broken(_deployment: Deployment) -> Finding:
        raise OSError("postgresql://optuna:correct%20horse@host, that is correct horse, is not there\nTraceback")

    first, second = doctor.examine(
        COMPOSE, [Check("A", "broken", broken), Check("A", "whole", lambda _: doctor.ok("fine"))]
    )
    assert first.finding.verdict == "failure"
    assert first.finding.says == ("could not be examined: postgresql://optuna:***@host, that is ***, is not there")
    assert second.finding == doctor.ok("fine")


def test_what_needs_a_service_that_is_ill_points_there_and_what_needs_an_absent_one_says_so() -> None:
    def never(_deployment: Deployment) -> Finding:
        raise AssertionError("looked")

    results = doctor.examine(
        COMPOSE,
        [
            Check("A", "S3", lambda _: doctor.failure("down", "start it")),
            Check("A", "Redis", lambda _: doctor.skipped("no Celery here")),
            Check("A", "write", never, ("S3",)),
            Check("A", "queues", never, ("Redis",)),
        ],
    )
    assert results[2].finding == doctor.skipped("not looked at: see S3")
    assert results[3].finding == doctor.skipped("no Celery here")


def test_checks_run_beside_each_other() -> None:
    def slow(_deployment: Deployment) -> Finding:
        time.sleep(0.4)
        return doctor.ok("slept")

    began = time.monotonic()
    doctor.examine(COMPOSE, [Check("A", f"check {number}", slow) for number in range(8)])
    assert time.monotonic() - began < 1.6


def test_passwords_of_variables_and_of_urls_are_known_as_secrets() -> None:
    variables = {
        "AWS_ACCESS_KEY_ID": "trainer",
        "AWS_SECRET_ACCESS_KEY": "one",
        "AIRFLOW__CORE__FERNET_KEY": "two",
        "BROKER": "redis://:three@redis:6379/0",
        "BROKEN": "postgresql://me:fo[ur@host/base",
    }
    assert set(known_secrets(variables)) == {"one", "two", "three", "fo[ur"}


@pytest.mark.parametrize("verdict", ["warning", "failure"])
def test_what_is_wrong_comes_with_a_remedy(verdict: str) -> None:
    with pytest.raises(ValueError, match="remedy"):
        Finding(verdict, "something is wrong")  # type: ignore[arg-type]


def test_the_table_is_at_most_100_columns_wide_and_tells_verdict_and_remedy_without_colours() -> None:
    results = [
        Result("Storage", "strangers", doctor.ok("refused [really]")),
        Result("Storage", "deleting data", doctor.failure("may delete " * 12, "Take it away")),
    ]
    text = io.StringIO()
    doctor.show(Console(file=text, width=140), results)
    lines = [line.rstrip() for line in text.getvalue().splitlines()]
    assert max(map(len, lines)) <= 100
    assert any(line.split() == ["ok", "strangers", "refused", "[really]"] for line in lines)
    assert any(line.strip().startswith("failure") for line in lines)
    assert any(line.strip() == "→ Take it away" for line in lines)
    assert lines[-1] == "1 failure, 0 warnings; 1 check passed, 0 skipped."


def test_json_is_a_list_of_objects() -> None:
    assert json.loads(doctor.as_json([Result("Storage", "strangers", doctor.ok("refused"))])) == [
        {"area": "Storage", "check": "strangers", "verdict": "ok", "says": "refused", "remedy": ""}
    ]


def test_the_embedded_stack_is_started_by_cifar_up_and_the_other_by_compose() -> None:
    assert "cifar up" in EMBEDDED.start("MLflow")
    assert "docker compose up -d mlflow" in replace(EMBEDDED, embedded=False).start("MLflow")
