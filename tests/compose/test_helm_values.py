"""What docker/helm-values.yaml and docs/scaling.md promise, read from the files, and by compose where there is one."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

PROJECT = Path(__file__).resolve().parents[2]
TEXT = (PROJECT / "docker" / "helm-values.yaml").read_text()
VALUES: dict[str, Any] = yaml.safe_load(TEXT)
PAGE = (PROJECT / "docs" / "scaling.md").read_text()
MAIN, WORKER = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
COMPOSE = yaml.safe_load((PROJECT / "docker-compose.yaml").read_text())["services"]
IMAGES = "registry.example.org/team/cifar"
TEMPLATED = re.compile(r"\{\{.*?\}\}")
SECRET_SETTINGS = {"CIFAR_STUDIES_URL", "CIFAR_AIRFLOW_PASSWORD"}
OF_CELERY_AND_DISK = re.compile(r"CELERY|EXECUTOR$|__BASE_LOG_FOLDER|AIRFLOW_HOME|FERNET|JWT")


def rendered(text: str) -> Any:
    """YAML that Helm fills in, with a word in place of each expression."""
    return yaml.safe_load(TEMPLATED.sub("release", text))


SETTINGS: dict[str, str] = rendered(VALUES["extraConfigMaps"]["cifar-settings"]["data"])
PODS = {
    "default": rendered(VALUES["podTemplate"]),
    "gpu": yaml.safe_load(rendered(VALUES["extraConfigMaps"]["cifar-pods"]["data"])["gpu.yaml"]),
}


@pytest.fixture(params=sorted(PODS))
def pod(request: pytest.FixtureRequest) -> dict[str, Any]:
    return PODS[request.param]


def test_the_chart_accepts_the_values():
    path = os.environ.get("HELM_CHART_SCHEMA")
    if not path:
        pytest.skip("HELM_CHART_SCHEMA names no copy of the chart's values.schema.json on this machine")
    schema = json.loads(Path(path).read_text())
    errors = [f"{list(e.path)}: {e.message}" for e in Draft7Validator(schema).iter_errors(VALUES)]
    assert errors == []
    # The schema lets unknown names pass at the top.
    assert set(VALUES) - set(schema["properties"]) == set()


def test_there_is_no_secret_in_the_file():
    assert not re.search(r"://[^/@\s]*:[^/@\s]+@", TEXT)
    assert not re.search(r"[A-Za-z0-9+/_-]{40,}={0,2}\b", re.sub(r"[A-Z0-9_]+__?[A-Z0-9_]+|[\w./]+\.Fab\w+", "", TEXT))
    for name in SETTINGS:
        assert not re.search(r"PASSWORD|SECRET|_KEY$|TOKEN|CONN$", name), name


def test_every_secret_that_is_asked_for_is_made_on_the_page():
    asked = set(re.findall(r"(?:secretRef|secretKeyRef): \{name: ([a-z-]+)", TEXT))
    asked |= {VALUES["data"]["metadataSecretName"]} | {VALUES[f"{key}SecretName"] for key in ("fernetKey", "jwt")}
    made = set(re.findall(r"\| secret ([a-z-]+)$", PAGE, re.MULTILINE))
    assert asked == made
    keys = set(re.findall(r"secretKeyRef: \{name: [a-z-]+, key: ([A-Z0-9_]+)\}", TEXT))
    assert {key for key in keys if f'"{key}=' not in PAGE} == set()


def test_the_set_up_job_knows_what_init_needs():
    needed = {name for name, value in COMPOSE["init"]["environment"].items() if ":?run make secrets" in value}
    of_the_chart = {name for name in needed if name.startswith("AIRFLOW__")}
    told = {variable["name"] for variable in VALUES["migrateDatabaseJob"]["env"]}
    # There each trainer may promote.
    assert needed - of_the_chart - {"MLFLOW_PROMOTER_PASSWORD"} <= told


def test_images_are_those_of_the_compose_file():
    built = {_image(service["image"]) for service in COMPOSE.values() if "build" in service}
    named = [spec["containers"][0]["image"] for spec in (pod["spec"] for pod in PODS.values())]
    assert {image.split(":")[0] for image in [*named, VALUES["images"]["airflow"]["repository"]]} <= built
    assert PODS["gpu"]["spec"]["containers"][0]["image"] == f"{IMAGES}-gpu-worker:1.0"
    # An image named here would replace those of the templates, so that no pod had torch.
    assert VALUES["config"]["kubernetes_executor"]["worker_container_repository"] == ""


def test_nothing_is_started_that_lies_elsewhere():
    assert VALUES["executor"] == "KubernetesExecutor"
    for part in ("postgresql", "redis", "pgbouncer", "flower", "createUserJob"):
        assert VALUES[part] == {"enabled": False}, part


def test_task_logs_go_to_s3():
    assert SETTINGS["AIRFLOW__LOGGING__REMOTE_LOGGING"] == "true"
    assert SETTINGS["AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER"].startswith("s3://")


def test_settings_are_those_of_the_compose_file():
    theirs = COMPOSE["worker"]["environment"]
    fixed = {
        name: value
        for name, value in theirs.items()
        if name.startswith("AIRFLOW_") and "${" not in value and not OF_CELERY_AND_DISK.search(name)
    }
    fixed["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] = "http://release-api-server:8080/execution/"
    assert {name: SETTINGS.get(name) for name in fixed} == fixed
    assert {name for name in theirs if name.startswith("CIFAR_")} - SECRET_SETTINGS <= set(SETTINGS)
    assert all(isinstance(value, str) for value in SETTINGS.values()), "a ConfigMap takes strings only"


def test_tasks_of_the_queue_gpu_get_a_node_with_a_gpu():
    spec = PODS["gpu"]["spec"]
    assert spec["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert spec["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
    assert spec["tolerations"][0]["key"] == "nvidia.com/gpu"
    assert "nodeSelector" not in PODS["default"]["spec"]


def test_pods_know_what_a_trainer_knows_and_have_no_rights(pod):
    spec, container = pod["spec"], pod["spec"]["containers"][0]
    assert container["name"] == "base", "the executor looks for this name"
    assert container["envFrom"] == [
        {"configMapRef": {"name": "cifar-settings"}},
        {"secretRef": {"name": "cifar-trainer"}},
    ]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["command"] == ["/usr/bin/env"], "the executor gives arguments, not those of our entrypoints"


def test_airflow_gives_the_gpu_template_to_tasks_of_the_queue_gpu_and_to_no_others(tmp_path: Path):
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "airflow_local_settings.py").write_text(VALUES["airflowLocalSettings"])
    program = f"""
import json, sys, uuid
sys.path.insert(0, {str(PROJECT / "dags")!r})
import airflow.settings
from airflow.models.taskinstance import TaskInstance
from airflow.serialization.serialized_objects import DagSerialization
from cifar10_promotion import cifar10_promotion
from cifar10_training import cifar10_training
dags = [DagSerialization.from_dict(DagSerialization.to_dict(dag())) for dag in (cifar10_training, cifar10_promotion)]
instances = [TaskInstance(task, dag_version_id=uuid.uuid4(), map_index=0) for dag in dags for task in dag.tasks]
print(json.dumps([[i.task_id, i.queue, (i.executor_config or {{}}).get("pod_template_file")] for i in instances]))
"""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "CIFAR"))}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**kept, "AIRFLOW_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    mounted = VALUES["scheduler"]["extraVolumeMounts"][0]["mountPath"]
    template = {task: (queue, file) for task, queue, file in json.loads(done.stdout.splitlines()[-1])}
    assert {task for task, (queue, _) in template.items() if queue == "gpu"} == {
        "tuning.run_trials",
        "model.train",
        "model.evaluate",
        "propose",
    }
    assert {(queue, file) for queue, file in template.values()} == {("gpu", mounted), ("default", None)}


class TestWorkerOnAnotherMachine:
    def test_is_told_the_seven_secrets_of_the_page_and_no_other(self):
        told = set(re.findall(r"\$\{([A-Z0-9_]+):\?run make secrets\}", str(COMPOSE["gpu-worker"]["environment"])))
        table = PAGE[: PAGE.index("No other secret")]
        assert len(told) == 7
        assert told == set(re.findall(r"`([A-Z0-9_]+_(?:PASSWORD|SECRET|KEY))`", table))

    def test_finds_each_service_under_the_name_it_has_on_the_main_machine(self):
        hosts = {entry.split(":")[0] for entry in yaml.safe_load(WORKER)["x-worker"]["extra_hosts"]}
        text = str(COMPOSE["gpu-worker"]["environment"])
        assert hosts == {name for name in COMPOSE if re.search(rf"(//|@|:-|:-http://){name}\b", text)}
        assert hosts == {name for name, service in yaml.safe_load(MAIN)["services"].items() if service.get("ports")}

    def test_is_confined_like_one_on_the_main_machine(self):
        here, there = COMPOSE["gpu-worker"], yaml.safe_load(WORKER)["x-worker"]
        for setting in ("read_only", "cap_drop", "security_opt", "restart", "tmpfs", "stop_grace_period", "pids_limit"):
            assert there[setting] == here[setting], setting
        assert _image(there["image"]) == _image(here["image"])

    def test_ports_are_on_private_addresses_only(self):
        ports = re.findall(r'ports: \["(.*?)"\]', MAIN + WORKER)
        assert len(ports) == 6
        assert all(port.startswith("10.8.0.") for port in ports)

    @pytest.mark.parametrize("machine", ["main", "worker"])
    def test_compose_can_read_the_files_of_the_page(self, machine: str, tmp_path: Path):
        command = shlex.split(os.environ.get("COMPOSE", "docker compose"))
        if "COMPOSE" not in os.environ and not _has_compose():
            pytest.skip("no docker compose on this machine")
        (tmp_path / "compose.yaml").write_text(MAIN if machine == "main" else WORKER)
        (tmp_path / "gpu1.env").write_text("AIRFLOW_HOME=/tmp/airflow\n")
        demanded = re.findall(r"\$\{([A-Z0-9_]+):\?", (PROJECT / "docker-compose.yaml").read_text())
        files = [f"--file={PROJECT / 'docker-compose.yaml'}"] if machine == "main" else []
        done = subprocess.run(
            [*command, *files, f"--file={tmp_path / 'compose.yaml'}", "config"],
            env={**os.environ, **dict.fromkeys(demanded, "x"), "CIFAR_IMAGES": IMAGES, "CIFAR_VERSION": "1.0"},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        services = yaml.safe_load(done.stdout)["services"]
        name = "gpu-worker" if machine == "main" else "gpu1-0"
        assert services[name]["image"] == f"{IMAGES}-gpu-worker:1.0"
        if machine == "main":
            assert set(services["redis"]["networks"]) == {"inside", "users"}


def _image(name: str) -> str:
    return re.sub(r"\$\{CIFAR_IMAGES[^}]*\}", IMAGES, name).split(":$")[0]


def _has_compose() -> bool:
    if not shutil.which("docker"):
        return False
    return subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0
