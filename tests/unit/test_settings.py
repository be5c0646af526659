"""Settings from the environment, and the cores of this machine."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from cifar_tasks.data.quality.quality_limits import QualityLimits
from cifar_tasks.errors import ConfigError
from cifar_tasks.promotion.limits import Limits
from cifar_tasks.settings import PROJECT, Settings, cpu_cores, read_settings, training_threads


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("HOME", "~nosuchuser/x", "the home of ~nosuchuser is not known"),
        ("SCHEDULE", "daily", "not a cron expression"),
        ("SCHEDULE", "0 3 * *", "not a cron expression"),
        ("SCHEDULE", "61 * * * *", "not a cron expression"),
        ("SCHEDULE", '"0 3 * * *"', "not a cron expression"),
        ("SCHEDULE", "0 0 30 2 *", "not a cron expression"),
        ("SCHEDULE", "@once", "not a cron expression"),
        ("SCHEDULE_TIMEZONE", "europe/berlin", "did you mean Europe/Berlin"),
        ("SCHEDULE_TIMEZONE", "Europe", "not an IANA time zone"),
        ("SCHEDULE_TIMEZONE", "../zone", "not an IANA time zone"),
        ("SCHEDULE_TIMEZONE", "UTC+2", "not an IANA time zone"),
        ("REGISTERED_MODEL", "a/b", "letters, digits"),
        ("SOURCE", "pictures", "absolute path"),
        ("BUCKET", "My_Bucket", "pattern"),
        ("PROMOTION", "sometimes", "'auto', 'approve' or 'never'"),
        ("PROMOTION", "force", "'auto', 'approve' or 'never'"),
        ("PROMOTION_LIMITS", "min_gain=1", "is no JSON"),
        ("PROMOTION_LIMITS", '{"min_gian": 0.01}', "min_gian: Extra inputs"),
        ("PROMOTION_LIMITS", '{"confidence": 95}', "confidence: Input should be less than 1"),
        ("APPROVAL_HOURS", "0", "greater than 0"),
        ("DATASET_LINES", "products=s3://a/b", "is no JSON"),
        ("DATASET_LINES", '{"My Line": {"source": "cifar10"}}', "My Line"),
        ("DATASET_LINES", '{"a": {}}', "a.source: Field required"),
        ("DATASET_LINES", '{"a": {"source": "auto"}}', "a.source: a dataset line has one source: give cifar10"),
        ("DATASET_LINES", '{"a": {"source": "cifar10", "size": 3}}', "a.size: Extra inputs"),
        ("DATASET_LINES", '{"a": {"source": "cifar10", "settle_seconds": -1}}', "a.settle_seconds: .* greater than"),
        ("DATASET_LINES", '{"a": {"source": "cifar10", "marker": "b/c"}}', "a.marker: String should match"),
        ("DATASET_SCHEDULE", "hourly", "not a cron expression"),
        ("DATASET_LIMITS", '{"max_brightness": 1}', "max_brightness: Extra inputs"),
        ("DATASET_LIMITS", '{"max_ks": 20}', "max_ks: Input should be less than or equal to 1"),
        ("PRETRAINED_WEIGHTS", "{resnet50", "is no JSON"),
        ("PRETRAINED_WEIGHTS", '{"resnet50": {"source": "a"}}', "resnet50.sha256: Field required"),
    ],
)
def test_a_bad_value_is_refused_by_the_name_of_its_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv(f"CIFAR_{name}", value)
    with pytest.raises(ConfigError, match=message) as refused:
        read_settings()
    assert str(refused.value).startswith(f"CIFAR_{name}")


def test_a_home_that_begins_with_a_tilde_is_the_user_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIFAR_HOME", "~/x")
    assert read_settings().home == Path.home() / "x"


def test_limits_that_are_not_named_keep_their_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIFAR_PROMOTION_LIMITS", '{"max_latency_ms": 20}')
    assert read_settings().promotion_limits == Limits(max_latency_ms=20)
    monkeypatch.setenv("CIFAR_DATASET_LIMITS", '{"max_ks": 0.3}')
    assert read_settings().dataset_limits == QualityLimits(max_ks=0.3)


@pytest.mark.parametrize("bad", [{}, {"SOURCE": "line:gone"}, {"IMAGE_SIZE": "1"}])
def test_no_error_tells_a_secret(monkeypatch: pytest.MonkeyPatch, bad: dict[str, str]) -> None:
    secrets = {"WEBHOOK_TOKEN": "hunter2", "AIRFLOW_PASSWORD": "hunter2", "STUDIES_URL": "postgresql://hunter2@db"}
    for name, value in (secrets | bad).items():
        monkeypatch.setenv(f"CIFAR_{name}", value)
    with pytest.raises(ConfigError) as of_command:
        read_settings()
    with pytest.raises(ValidationError) as of_dag:
        Settings()
    assert "hunter2" not in f"{of_command.value} {of_dag.value}"
    assert "fewer than 24" in str(of_command.value) or bad


def test_all_bad_values_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    bad = {"SCHEDULE": "daily", "PROFILE": "huge", "IMAGE_SIZE": "7"}
    for name, value in bad.items():
        monkeypatch.setenv(f"CIFAR_{name}", value)
    with pytest.raises(ConfigError) as refused:
        read_settings()
    assert {line.partition(":")[0] for line in str(refused.value).splitlines()} == {f"CIFAR_{name}" for name in bad}


@pytest.mark.parametrize("schedule", ["0 3 * * 1", "@daily", "*/10 * * * *", "0 3 * * mon-fri"])
def test_a_schedule_is_what_airflow_s_own_parser_accepts(monkeypatch: pytest.MonkeyPatch, schedule: str) -> None:
    monkeypatch.setenv("CIFAR_SCHEDULE", schedule)
    monkeypatch.setenv("CIFAR_SCHEDULE_TIMEZONE", "Asia/Kolkata")
    settings = read_settings()
    assert (settings.schedule, settings.schedule_timezone) == (schedule, "Asia/Kolkata")


def test_cores_are_those_that_the_process_may_run_on() -> None:
    program = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
    program += "from cifar_tasks.settings import cpu_cores; print(cpu_cores())"
    done = subprocess.run([sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


@pytest.mark.parametrize(
    "files",
    [{"cpu.max": "100000 100000"}, {"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}],
    ids=["cgroup v2", "cgroup v1"],
)
def test_cores_are_not_more_than_the_quota_of_the_container(tmp_path: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    program = "from cifar_tasks.settings import *; print(cpu_cores(), training_threads(Settings()))"
    script = f"mount --bind {tmp_path} /sys/fs/cgroup && exec {sys.executable} -c '{program}'"
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    if "unshare:" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"no mounts in a namespace of its own here: {done.stderr.strip()}")
    assert done.stdout == "1 1\n", done.stderr


@pytest.mark.parametrize(
    ("cores", "quota", "slots", "threads"),
    [
        (8, 8, {"gpu_slots": 2}, 4),
        (8, 4, {"gpu_slots": 2}, 2),  # both trainings in one container
        (8, 2, {"gpu_slots": 2, "quota_slots": 1}, 2),  # each training in a container of its own
        (2, 2, {"gpu_slots": 2, "quota_slots": 1}, 1),
        (2, 1, {"gpu_slots": 8}, 1),
    ],
)
def test_trainings_share_the_cores_of_the_machine_and_the_quota_of_their_container(
    monkeypatch: pytest.MonkeyPatch, cores: int, quota: int, slots: dict[str, int], threads: int
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)))
    monkeypatch.setattr("cifar_tasks.settings.cpu_cores", lambda: quota)
    assert training_threads(Settings(**slots)) == threads


@pytest.mark.parametrize(
    ("trainings", "slots", "threads"),
    [
        (1, {"gpu_slots": 2}, 8),  # nothing trains beside it
        (2, {"gpu_slots": 2}, 4),
        (3, {"gpu_slots": 2}, 4),  # two at a time
        (2, {"gpu_slots": 4}, 4),
        (1, {"gpu_slots": 4, "quota_slots": 1}, 8),
        (None, {"gpu_slots": 4}, 2),
    ],
)
def test_threads_follow_from_how_many_trainings_a_run_has(
    monkeypatch: pytest.MonkeyPatch, trainings: int | None, slots: dict[str, int], threads: int
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr("cifar_tasks.settings.cpu_cores", lambda: 8)
    assert training_threads(Settings(**slots), trainings) == threads


def test_cores_are_counted_in_one_place() -> None:
    counts = ("cpu_count()", "sched_getaffinity")
    files = [path for path in Path(PROJECT, "cifar_tasks").rglob("*.py") if any(c in path.read_text() for c in counts)]
    assert [path.name for path in files] == ["settings.py"]
    assert cpu_cores() <= len(os.sched_getaffinity(0))


def test_tests_do_not_see_the_stack_that_the_developer_has_started():
    assert PROJECT not in Settings().home.parents
