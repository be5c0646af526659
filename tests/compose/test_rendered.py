"""What docker-compose.yaml promises, read from the file, without an engine."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

PROJECT = Path(__file__).resolve().parents[2]
TEXT = (PROJECT / "docker-compose.yaml").read_text()
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(TEXT)["services"]
NETWORKS = yaml.safe_load(TEXT)["networks"]
JOBS = {"init", "cifar", "backup"}
"""Run to their end, so they have no health and are not started again."""
DEMANDED = re.compile(r"\$\{[A-Z0-9_]+:\?run make secrets\}|\$\{CIFAR_WEBHOOK_TOKEN:-\}")
"""Without the token of the webhook there is no webhook."""
SECRET = re.compile(r"(PASSWORD|SECRET|_KEY|TOKEN|_AUTH|FERNET|_URL|_URI|SQL_ALCHEMY_CONN|RESULT_BACKEND)$")
HARMLESS = {"AWS_ACCESS_KEY_ID"}


@pytest.fixture(params=sorted(SERVICES))
def service(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return request.param, SERVICES[request.param]


def test_every_service_of_the_deployment_is_there():
    wanted = {"postgres", "redis", "storage", "mlflow", "init", "api-server", "scheduler", "dag-processor", "triggerer"}
    assert wanted | {"worker", "gpu-worker", "promotion-worker", "flower", "cifar", "backup"} == set(SERVICES)


def test_ports_are_on_loopback_only(service):
    name, settings = service
    for port in settings.get("ports", []):
        assert str(port).startswith("127.0.0.1:"), name


def test_no_secret_has_a_default(service):
    name, settings = service
    for variable, value in settings.get("environment", {}).items():
        plain = DEMANDED.sub("", str(value))
        if SECRET.search(variable) and variable not in HARMLESS and not _is_address(plain):
            assert DEMANDED.search(str(value)), f"{name}: {variable}"
            assert not re.search(r"://[^/@]*:[^/@]+@", plain), f"{name}: {variable} has a password in the file"


def test_nothing_runs_as_root_or_may_become_root(service):
    name, settings = service
    assert settings["cap_drop"] == ["ALL"], name
    assert "cap_add" not in settings, name
    assert "privileged" not in settings, name
    assert settings["security_opt"] == ["no-new-privileges:true"], name
    if "build" not in settings:
        assert settings["user"] not in ("root", "0"), name


@pytest.mark.parametrize("name", ["worker", "gpu-worker"])
def test_workers_that_download_keep_what_they_fetched_and_may_use_a_proxy_for_other_hosts_than_ours(name):
    settings = SERVICES[name]
    assert "outside" in settings["networks"]
    assert "work:/data" in settings["volumes"]
    assert settings["environment"]["CIFAR_HOME"] == "/data"
    assert settings["environment"]["HTTPS_PROXY"] == "${HTTPS_PROXY:-}"
    direct = settings["environment"]["NO_PROXY"].split(",")
    hosts = set(re.findall(r"https?://([a-z-]+):\d", " ".join(map(str, settings["environment"].values()))))
    assert {"mlflow", "storage", "api-server"} <= hosts <= set(direct)
    assert direct[-1] == "${NO_PROXY:-}"


def test_every_image_of_ours_ends_as_another_user_than_root():
    stages = re.split(r"^FROM ", (PROJECT / "docker" / "Dockerfile").read_text(), flags=re.MULTILINE)[1:]
    users = {re.search(r"AS (\S+)", stage)[1]: re.findall(r"^USER (\S+)", stage, re.MULTILINE) for stage in stages}
    for settings in SERVICES.values():
        if "build" in settings:
            assert users[settings["build"]["target"]] == ["50000"]


def test_file_systems_are_read_only_and_resources_limited(service):
    name, settings = service
    assert settings["read_only"] is True, name
    assert "/tmp" in settings["tmpfs"], name  # noqa: S108
    for limit in ("mem_limit", "cpus", "pids_limit"):
        assert settings[limit], f"{name} has no {limit}"
    assert settings["logging"]["driver"] == "none" or settings["logging"]["options"]["max-size"], name


def test_every_service_has_a_health_check_and_is_started_again(service):
    name, settings = service
    if name in JOBS:
        assert settings["restart"] == "no"
    else:
        assert settings["restart"] == "unless-stopped"
        assert settings["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL"), name


def test_images_are_built_here_or_named_with_a_version(service):
    name, settings = service
    image = settings["image"]
    assert ":" in image, name
    assert not image.endswith("latest"), name
    if "build" not in settings:
        assert re.fullmatch(r"\$\{[A-Z_]+_IMAGE:-[a-z]+:[0-9].*\}", image), f"{name}: a digest cannot be given"


def test_data_can_be_reached_from_the_inside_only():
    assert NETWORKS["inside"]["internal"] is True
    for name in ("postgres", "redis", "storage"):
        assert SERVICES[name]["networks"] == ["inside"]
        assert "ports" not in SERVICES[name]


@pytest.mark.parametrize(
    ("file", "variable"),
    [("docker-compose.s3.yaml", "S3_ENDPOINT_URL"), ("docker-compose.postgres.yaml", "POSTGRES_HOST")],
)
def test_whoever_needs_a_service_that_is_elsewhere_has_a_way_out(file: str, variable: str):
    override = yaml.safe_load((PROJECT / file).read_text())["services"]
    needing = {name for name, settings in SERVICES.items() if f"${{{variable}" in str(settings["environment"])}
    assert len(needing) > 8
    for name in needing:
        assert "outside" in override.get(name, SERVICES[name]).get("networks", SERVICES[name]["networks"]), name
        if variable == "S3_ENDPOINT_URL":
            assert override[name]["environment"]["AWS_SECRET_ACCESS_KEY"] == "${S3_SECRET_ACCESS_KEY:?set in .env}", (
                name
            )


def test_workers_know_no_password_that_they_do_not_need():
    for name in ("worker", "gpu-worker", "promotion-worker"):
        text = str(SERVICES[name]["environment"])
        for password in ("AIRFLOW_DB", "MLFLOW_DB", "MLFLOW_ADMIN", "AIRFLOW_ADMIN", "S3_ADMIN", "AIRFLOW_SESSION"):
            assert password not in text, f"{name} knows {password}"
    assert "TRAINER" not in str(SERVICES["api-server"]["environment"])
    webhook = {name for name, settings in SERVICES.items() if "WEBHOOK_TOKEN" in str(settings["environment"])}
    assert webhook == {"storage", "api-server"}
    notes = {name for name, settings in SERVICES.items() if "AIRFLOW_WORKER_PASSWORD" in str(settings["environment"])}
    assert notes == {"init", "worker", "promotion-worker"}
    promoters = {name for name, settings in SERVICES.items() if "PROMOTER" in str(settings["environment"])}
    assert promoters == {"storage", "init", "promotion-worker", "cifar"}


def test_the_queue_of_the_promotion_has_a_worker():
    queues = [settings["command"][3] for settings in SERVICES.values() if "--queues" in settings.get("command", [])]
    assert SERVICES["worker"]["environment"]["CIFAR_PROMOTION_QUEUE"] in queues


def test_a_message_is_not_delivered_again_while_its_task_may_wait_or_run():
    environment = SERVICES["gpu-worker"]["environment"]
    visible = int(environment["AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT"])
    longest = 24 * 3600  # execution_timeout of the longest task; tests/dags holds it below a day
    assert visible > int(environment["AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT"]) + longest


@pytest.mark.parametrize("file", sorted(path.name for path in PROJECT.glob("docker-compose*.yaml")))
def test_the_compose_linter_finds_nothing_grave(file: str):
    linted = _run(Path(sys.executable).with_name("compose-lint"), file)
    assert linted.returncode == 0, linted.stdout


def test_hadolint_finds_nothing_in_the_dockerfile():
    linted = _run(Path(sys.executable).with_name("hadolint"), "docker/Dockerfile")
    assert (linted.returncode, linted.stdout) == (0, "")


class TestSecrets:
    def test_are_random_private_complete_and_never_overwritten(self, tmp_path: Path):
        texts = []
        for name in ("one", "other"):
            tree = tmp_path / name
            (tree / "docker").mkdir(parents=True)
            shutil.copy(PROJECT / "docker-compose.yaml", tree)
            shutil.copy(PROJECT / "docker" / "secrets.sh", tree / "docker")
            assert _run("sh", tree / "docker" / "secrets.sh").returncode == 0
            assert (tree / ".env").stat().st_mode & 0o777 == 0o600
            again = _run("sh", tree / "docker" / "secrets.sh")
            assert again.returncode == 0
            assert "has all secrets already" in again.stdout
            texts.append((tree / ".env").read_text())
        values = [dict(re.findall(r"^([A-Z0-9_]+)=(.{40,})$", text, re.MULTILINE)) for text in texts]
        demanded = set(re.findall(r"\$\{([A-Z0-9_]+):\?run make secrets\}", TEXT))
        assert set(values[0]) == set(values[1]) == demanded
        assert len({*values[0].values(), *values[1].values()}) == 2 * len(demanded)

    def test_those_that_a_newer_version_demands_are_added_to_the_others(self, tmp_path: Path):
        (tmp_path / "docker").mkdir()
        shutil.copy(PROJECT / "docker" / "secrets.sh", tmp_path / "docker")
        lines = [line for line in TEXT.splitlines() if "PROMOTER" not in line]
        (tmp_path / "docker-compose.yaml").write_text("\n".join(lines))
        _run("sh", tmp_path / "docker" / "secrets.sh")
        before = (tmp_path / ".env").read_text()
        shutil.copy(PROJECT / "docker-compose.yaml", tmp_path)
        added = _run("sh", tmp_path / "docker" / "secrets.sh")
        assert added.stdout.startswith("Added to .env: MLFLOW_PROMOTER_PASSWORD S3_PROMOTER_SECRET_KEY.")
        after = (tmp_path / ".env").read_text()
        assert after.startswith(before)
        assert re.fullmatch(r"\nMLFLOW_PROMOTER_PASSWORD=\S{64}\nS3_PROMOTER_SECRET_KEY=\S{64}\n", after[len(before) :])
        assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600
        assert not list(tmp_path.glob(".env.*"))

    @pytest.mark.parametrize("empty", ["", '""', " ", "''"])
    def test_one_that_was_emptied_is_made_again(self, tmp_path: Path, empty: str):
        (tmp_path / "docker").mkdir()
        shutil.copy(PROJECT / "docker-compose.yaml", tmp_path)
        shutil.copy(PROJECT / "docker" / "secrets.sh", tmp_path / "docker")
        _run("sh", tmp_path / "docker" / "secrets.sh")
        before = (tmp_path / ".env").read_text()
        (tmp_path / ".env").write_text(re.sub(r"(?m)^FLOWER_PASSWORD=.*$", f"FLOWER_PASSWORD={empty}", before))
        assert "Added to .env: FLOWER_PASSWORD." in _run("sh", tmp_path / "docker" / "secrets.sh").stdout
        after = (tmp_path / ".env").read_text()
        assert re.findall(r"(?m)^FLOWER_PASSWORD=(.*)$", after) == [after.splitlines()[-1].partition("=")[2]]
        assert len(after.splitlines()[-1]) > 40
        kept = [line for line in before.splitlines() if "FLOWER_PASSWORD" not in line]
        assert [line for line in after.splitlines() if "FLOWER_PASSWORD" not in line] == [*kept, ""]

    @pytest.mark.parametrize(
        "own",
        [
            "FLOWER_PASSWORD=!Summer",
            "FLOWER_PASSWORD=€uro",
            'FLOWER_PASSWORD="+ 1"',
            "FLOWER_PASSWORD= spaced",
            "export FLOWER_PASSWORD=word",
            'FLOWER_PASSWORD="#1 fan"',
            "FLOWER_PASSWORD=' x'",
            "FLOWER_PASSWORD=#hash",
            "  FLOWER_PASSWORD = word",
            "FLOWER_PASSWORD: word",
        ],
    )
    def test_one_of_your_own_is_kept(self, tmp_path: Path, own: str):
        (tmp_path / "docker").mkdir()
        shutil.copy(PROJECT / "docker-compose.yaml", tmp_path)
        shutil.copy(PROJECT / "docker" / "secrets.sh", tmp_path / "docker")
        _run("sh", tmp_path / "docker" / "secrets.sh")
        yours = re.sub(r"(?m)^FLOWER_PASSWORD=.*$", own, (tmp_path / ".env").read_text())
        (tmp_path / ".env").write_text(yours)
        assert _run("sh", tmp_path / "docker" / "secrets.sh").returncode == 0
        assert (tmp_path / ".env").read_text() == yours

    def test_files_with_secrets_are_not_for_version_control(self):
        for name in (".env", ".env.a1B2c3", ".env.a1B2c3.whole", "gpu1.env"):
            assert _run("git", "check-ignore", name).returncode == 0, name

    def test_the_fernet_key_is_one(self, tmp_path: Path):
        from cryptography.fernet import Fernet

        (tmp_path / "docker").mkdir()
        shutil.copy(PROJECT / "docker-compose.yaml", tmp_path)
        shutil.copy(PROJECT / "docker" / "secrets.sh", tmp_path / "docker")
        _run("sh", tmp_path / "docker" / "secrets.sh")
        key = re.search(r"^AIRFLOW_FERNET_KEY=(.*)$", (tmp_path / ".env").read_text(), re.MULTILINE)[1]
        assert Fernet(key).decrypt(Fernet(key).encrypt(b"x")) == b"x"


def _is_address(value: str) -> bool:
    """A URL without a login, where a variable's name alone looks like a secret's."""
    return (value.startswith("http") and "@" not in value) or (value.startswith("${") and ":-http" in value)


def _run(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in words],
        cwd=PROJECT,
        env=os.environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_a_worker_of_mlflow_that_starts_slowly_is_not_killed():
    # Otherwise uvicorn kills it after 5 s without an answer, and on a busy machine MLflow never starts.
    (seconds,) = re.findall(r"--timeout-worker-healthcheck (\d+)", (PROJECT / "docker" / "mlflow.sh").read_text())
    assert int(seconds) >= 60
