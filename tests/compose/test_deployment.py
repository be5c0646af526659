"""The deployment as its users see it: it starts, trains on two workers, keeps its data, and enforces permissions."""

import json
import os
import re
from collections.abc import Callable
from typing import Any

import pytest
import requests
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from benchmarks.temporary_stack import free_port
from cifar_tasks.deployment.dag_ids import TRAINING_DAG
from cifar_tasks.tracking.airflow_links import DAG_RUN, MODELS_PAGE
from tests.compose.conftest import EXPERIMENT, MODEL, finish, kept, start
from tests.compose.deployment import Deployment
from tests.waiting import wait_until

if not os.environ.get("COMPOSE"):
    pytest.skip("needs a Docker engine and 40 minutes: `make test-compose`", allow_module_level=True)

CLIENT = "from cifar_tasks.storage.s3 import s3_client"
REFUSED = r"(?i)permission|403"
Tracking = Callable[[str], MlflowClient]


@pytest.fixture(scope="module")
def trained(deployment: Deployment) -> dict[str, str]:
    """Both models on digits, at the same time; the facts of the run by which later tests find it."""
    run = start(deployment, models=["cnn", "resnet50"], epochs=2, pretrained="none")
    assert finish(deployment, run, 900) == "success", [(task.task_id, task.state) for task in run.tasks()]
    return {"run_id": run.run_id}


def test_every_service_is_healthy_within_three_minutes(deployment: Deployment):
    assert deployment.seconds_to_health < 180


def test_two_models_train_at_the_same_time_on_two_workers(deployment: Deployment, trained: dict[str, str]):
    trainings = [task for task in _tasks(deployment, trained["run_id"]) if task["task_id"] == "model.train"]
    assert len({task["hostname"] for task in trainings}) == 2
    begun = max(task["start_date"] for task in trainings)
    assert begun < min(task["end_date"] for task in trainings)
    assert {task["queue"] for task in trainings} == {"gpu"}


def test_no_task_was_tried_twice(deployment: Deployment, trained: dict[str, str]):
    assert {task["try_number"] for task in _tasks(deployment, trained["run_id"]) if task["state"] == "success"} == {1}


def test_models_are_registered_and_the_better_one_is_champion(tracking: Tracking, trained: dict[str, str]):
    client = tracking("reader")
    versions = client.search_model_versions(f"name = '{MODEL}'")
    accuracies = {version.tags["cifar.model"]: float(version.tags["cifar.test_accuracy"]) for version in versions}
    assert accuracies.keys() == {"cnn", "resnet50"}
    # The promotion is a DAG run of its own, which the training does not wait for.
    wait_until(lambda: "champion" in client.get_registered_model(MODEL).aliases, 300)
    champion = client.get_model_version_by_alias(MODEL, "champion")
    assert accuracies[champion.tags["cifar.model"]] == max(accuracies.values())


def test_the_note_of_the_promotion_has_its_reasons(deployment: Deployment, tracking: Tracking, trained: dict[str, str]):
    client = tracking("reader")
    wait_until(lambda: "champion" in client.get_registered_model(MODEL).aliases, 300)
    runs = f"{deployment.airflow_url}/api/v2/dags/cifar10_promotion/dagRuns"

    def reasons() -> list[str]:
        found = requests.get(runs, headers={"Authorization": f"Bearer {deployment.token()}"}, timeout=30).json()
        return [line for run in found["dag_runs"] for line in run["note"].splitlines() if line.startswith("- ")]

    wait_until(reasons, 60)
    assert any("champion" in reason for reason in reasons())


def test_the_models_page_answers_who_is_logged_in(deployment: Deployment, tracking: Tracking, trained: dict[str, str]):
    first, second = sorted(v.version for v in tracking("reader").search_model_versions(f"name = '{MODEL}'"))[:2]
    page = f"{deployment.airflow_url}/models-page/page?registered_model={MODEL}"
    pages = {"versions": page, "pair": f"{page}&view=compare&a={first}&b={second}", "history": f"{page}&view=history"}
    login = {"Authorization": f"Bearer {deployment.token()}"}
    for name, address in pages.items():
        assert requests.get(address, timeout=30).status_code == 401, name
        answer = requests.get(address, headers=login, timeout=60)
        assert (name, answer.status_code) == (name, 200)
        assert not [name for name, value in deployment.secrets.items() if len(value) > 15 and value in answer.text]
        assert name == "history" or "resnet50" in answer.text, name
        if name == "pair":
            (picture, *_) = re.findall(r'src="(models-page/pictures/[^"]+)"', answer.text)
    shown = requests.get(f"{deployment.airflow_url}/{picture}", headers=login, timeout=60)
    assert (shown.status_code, shown.headers["content-type"]) == (200, "image/png")


def test_links_lead_to_the_published_addresses(deployment: Deployment, tracking: Tracking, trained: dict[str, str]):
    mlflow, airflow = (f"http://localhost:{deployment.environment[port]}/" for port in ("MLFLOW_PORT", "AIRFLOW_PORT"))
    client, run = tracking("reader"), f"dagRuns/{trained['run_id']}"
    versions = client.search_model_versions(
        f"name = '{MODEL}' AND tags.`cifar.workflow` = '{TRAINING_DAG}/{trained['run_id']}'"
    )
    assert len(versions) == 2
    for version in versions:
        tags = version.tags
        assert tags["cifar.airflow_url"].startswith(f"{airflow}dags/{TRAINING_DAG}/runs/")
        assert tags[MODELS_PAGE].startswith(f"{airflow}plugin/models?")
        assert client.get_run(version.run_id).data.tags[DAG_RUN] == tags["cifar.airflow_url"]
    # The comparison is one of the promotion, a DAG run of its own.
    wait_until(lambda: "champion" in client.get_registered_model(MODEL).aliases, 300)
    for task in ("model.train", "model.evaluate", "model.register"):
        shown = deployment.airflow(f"{run}/taskInstances/{task}/links?map_index=0")["extra_links"]
        assert shown.keys() == {"MLflow run", "Model version", "Report", "Comparison"}
        assert all(address.startswith(mlflow) for address in shown.values()), (task, shown)


def test_artifacts_and_logs_are_in_s3(deployment: Deployment, trained: dict[str, str]):
    code = (
        f"{CLIENT}; s3 = s3_client()\n"
        "for bucket in ('cifar', 'logs'):\n"
        "    for found in s3.list_objects_v2(Bucket=bucket).get('Contents', []): print(bucket, found['Key'])"
    )
    keys = deployment.python("worker", code)
    assert "trained.json" in keys
    assert any(line.startswith("logs ") and trained["run_id"] in line for line in keys.splitlines())


def test_the_log_of_a_task_can_be_read_in_the_ui(deployment: Deployment, trained: dict[str, str]):
    log = deployment.airflow(f"dagRuns/{trained['run_id']}/taskInstances/prepare/logs/1?full_content=true")
    assert "digits" in json.dumps(log)


def test_the_demo_s_table_is_printed_by_the_command_of_the_deployment(deployment: Deployment, trained: dict[str, str]):
    printed = deployment.compose(
        "run", "--rm", "-T", "cifar", "demo", "--source", "digits", "--models", "cnn", "--set", "epochs=1"
    ).stdout
    assert "2,429,270" in printed
    assert f"http://localhost:{deployment.environment['MLFLOW_PORT']}/#/" in printed


class TestNobodyMayMoreThanTheyNeed:
    def test_airflow_wants_the_generated_password(self, deployment: Deployment):
        for password, status in ((deployment.secrets["AIRFLOW_ADMIN_PASSWORD"], 201), ("admin", 401)):
            login = {"username": "admin", "password": password}
            assert requests.post(f"{deployment.airflow_url}/auth/token", json=login, timeout=30).status_code == status
        assert requests.get(f"{deployment.airflow_url}/api/v2/dags", timeout=30).status_code == 401

    def test_mlflow_refuses_anonymous_access_and_other_host_names(self, deployment: Deployment):
        url = f"{deployment.mlflow_url}/api/2.0/mlflow/experiments/search?max_results=1"
        assert requests.get(url, timeout=30).status_code == 401
        admin = ("admin", deployment.secrets["MLFLOW_ADMIN_PASSWORD"])
        assert requests.get(url, auth=admin, timeout=30).status_code == 200
        assert requests.get(url, auth=admin, headers={"Host": "evil.example"}, timeout=30).status_code == 403

    def test_a_trainer_logs_but_does_not_delete_runs_or_models_or_move_an_alias(
        self, tracking: Tracking, trained: dict[str, str]
    ):
        client = tracking("trainer")
        experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
        run = client.create_run(experiment).info.run_id
        client.log_metric(run, "written", 1.0)
        champion = client.get_model_version_by_alias(MODEL, "champion")
        for delete in (
            lambda: client.delete_run(run),
            lambda: client.delete_experiment(experiment),
            lambda: client.delete_model_version(MODEL, champion.version),
            lambda: client.delete_registered_model(MODEL),
            lambda: client.set_registered_model_alias(MODEL, "champion", champion.version),
            lambda: client.delete_registered_model_alias(MODEL, "champion"),
        ):
            with pytest.raises(MlflowException, match=REFUSED):
                delete()
        client.set_terminated(run)

    def test_a_reader_only_reads(self, tracking: Tracking, trained: dict[str, str]):
        client = tracking("reader")
        experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
        with pytest.raises(MlflowException, match=REFUSED):
            client.create_run(experiment)
        with pytest.raises(MlflowException, match=REFUSED):
            client.set_registered_model_alias(MODEL, "champion", 1)

    @pytest.mark.parametrize(
        ("service", "attempt", "allowed"),
        [
            ("worker", "put_object(Bucket='cifar', Key='runs/t/checkpoints/x', Body=b'')", True),
            ("worker", "delete_object(Bucket='cifar', Key='runs/t/checkpoints/x')", True),
            ("worker", "delete_object(Bucket='cifar', Key='datasets/x')", False),
            ("worker", "delete_object(Bucket='logs', Key='airflow/x')", False),
            ("worker", "list_objects_v2(Bucket='mlflow')", False),
            ("worker", "put_object(Bucket='cifar', Key='promotions/m/000009.json', Body=b'')", False),
            ("gpu-worker", "put_object(Bucket='cifar', Key='promotions/m/000009.json', Body=b'')", False),
            ("promotion-worker", "put_object(Bucket='cifar', Key='promotions/other/000001.json', Body=b'')", True),
            ("promotion-worker", "delete_object(Bucket='cifar', Key='promotions/other/000001.json')", False),
            ("worker", "put_bucket_policy(Bucket='cifar', Policy='{}')", False),
            ("api-server", "list_objects_v2(Bucket='logs')", True),
            ("api-server", "put_object(Bucket='cifar', Key='x', Body=b'')", False),
            ("api-server", "delete_object(Bucket='logs', Key='airflow/x')", False),
        ],
    )
    def test_an_identity_may_in_s3_what_its_role_needs(
        self, deployment: Deployment, service: str, attempt: str, allowed: bool
    ):
        answer = deployment.python(service, f"{CLIENT}; s3_client().{attempt}; print('done')", check=False)
        assert ("done" in answer) is allowed, answer
        assert allowed or "AccessDenied" in answer

    @pytest.mark.parametrize("other", ["airflow", "mlflow", "celery"])
    def test_a_database_role_sees_its_own_database_only(self, deployment: Deployment, other: str):
        code = (
            "import os, psycopg2\n"
            "url = os.environ['CIFAR_STUDIES_URL'].replace('+psycopg2', '')\n"
            "psycopg2.connect(url).close(); print('own')\n"
            f"psycopg2.connect(url.rpartition('/')[0] + '/{other}').close(); print('other')"
        )
        answer = deployment.python("worker", code, check=False)
        assert "own" in answer
        assert "permission denied" in answer

    def test_the_network_of_the_users_does_not_reach_what_holds_data(self, deployment: Deployment):
        project, image = deployment.environment["COMPOSE_PROJECT_NAME"], "cifartest-airflow:local"
        code = (
            "import socket, sys\n"
            "for place in sys.argv[1:]:\n"
            "    host, port = place.rsplit(':', 1)\n"
            "    try: socket.create_connection((host, int(port)), 3).close(); print(place, 'open')\n"
            "    except OSError: print(place, 'closed')"
        )
        address = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}"
        ports = {"postgres": [5432], "redis": [6379], "storage": [8333, 8888, 9333, 9340, 18888, 19333, 23646, 33646]}
        hidden = [
            f"{host}:{port}"
            for name, open_ports in ports.items()
            for host in [name, *deployment.docker("inspect", "-f", address, *deployment.containers(name)).split()]
            for port in open_ports
        ]
        words = ["run", "--rm", "--network", f"{project}_users", "--entrypoint", "python", image, "-c", code]
        answers = deployment.docker(*words, "api-server:8080", "mlflow:5000", *hidden).splitlines()
        assert answers[:2] == ["api-server:8080 open", "mlflow:5000 open"]
        assert len(answers) == 2 + len(hidden)
        assert all(answer.endswith(" closed") for answer in answers[2:]), answers

    def test_no_secret_is_in_a_log(self, deployment: Deployment, trained: dict[str, str]):
        logs = deployment.compose("logs", "--no-color").stdout
        logs += deployment.compose("exec", "-T", "worker", "sh", "-c", "find /logs -name '*.log' -exec cat {} +").stdout
        assert len(logs) > 10_000
        for name, value in deployment.secrets.items():
            assert len(value) < 40 or value not in logs, f"{name} is in a log"


@pytest.mark.parametrize(
    ("service", "changed", "probe", "reason"),
    [
        ("storage", "AWS_SECRET_ACCESS_KEY=guessed", "storage", "SignatureDoesNotMatch"),
        ("mlflow", "MLFLOW_AUTH_ADMIN_PASSWORD=guessed", "mlflow", "answers 401"),
        ("worker", "AIRFLOW__CELERY__OPERATION_TIMEOUT=10", "gpu-worker", "does not answer"),
        ("scheduler", "AIRFLOW__CORE__EXECUTION_API_SERVER_URL=http://storage:1/execution/", "scheduler", "not answer"),
    ],
)
def test_a_health_check_fails_with_the_reason(
    deployment: Deployment, service: str, changed: str, probe: str, reason: str
):
    words = ("exec", "-T", "-e", changed, service, "python", "-m", "cifar_tasks.deployment.probes", probe)
    done = deployment.compose(*words, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"{probe}: ")
    assert reason in done.stderr


def test_redis_wants_its_password_and_tells_its_version(deployment: Deployment):
    code = (
        "import os; from cifar_tasks.deployment import probes; url = os.environ['AIRFLOW__CELERY__BROKER_URL']\n"
        "print(probes.redis(url))\n"
        "try: probes.redis('redis://:guessed@' + url.rpartition('@')[2])\n"
        "except probes.ProbeError as error: print(error.code)"
    )
    version, code = deployment.python("worker", code).split()
    assert version.startswith("7.")
    assert code == "AuthenticationError"


def test_flower_starts_and_wants_its_password(deployment: Deployment):
    port = free_port()
    deployment.environment["FLOWER_PORT"] = str(port)
    deployment.compose("--profile", "flower", "up", "-d", "--wait", "flower", timeout=180)
    url, login = f"http://127.0.0.1:{port}/api/workers", ("admin", deployment.secrets["FLOWER_PASSWORD"])
    assert requests.get(url, timeout=30).status_code == 401
    assert requests.get(url, auth=login, timeout=30).status_code == 200
    deployment.compose("--profile", "flower", "rm", "--stop", "--force", "flower")


def test_the_image_without_torch_is_small(deployment: Deployment, trained: dict[str, str]):
    size = int(deployment.docker("image", "inspect", "--format", "{{.Size}}", "cifartest-airflow:local"))
    assert size < 1.5e9
    assert "ModuleNotFoundError" in deployment.python("worker", "import torch", check=False)


def test_another_secret_is_named_and_its_component_does_not_start(deployment: Deployment):
    for name in ("AIRFLOW__API_AUTH__JWT_SECRET", "AIRFLOW__CORE__FERNET_KEY"):
        wrong = deployment.compose("run", "--rm", "-T", "-e", f"{name}={'x' * 64}", "triggerer", "version", check=False)
        assert wrong.returncode == 1
        assert f"Not as in this deployment: {name} (differs)" in wrong.stdout + wrong.stderr


def test_down_and_up_loses_nothing(deployment: Deployment, tracking: Tracking, trained: dict[str, str]):
    before = kept(deployment, tracking("reader"))
    deployment.compose("down")
    deployment.compose("up", "-d")
    deployment.wait_until_healthy(240)
    assert kept(deployment, tracking("reader")) == before


def _tasks(deployment: Deployment, run_id: str) -> list[dict[str, Any]]:
    return list(deployment.airflow(f"dagRuns/{run_id}/taskInstances")["task_instances"])
