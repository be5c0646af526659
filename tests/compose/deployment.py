"""A compose deployment for tests: a copy of the tree with secrets, ports and a project name of its own."""

import json
import os
import re
import shlex
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from benchmarks.temporary_stack import free_ports
from cifar_tasks.deployment.dag_ids import TRAINING_DAG

PROJECT = Path(__file__).resolve().parents[2]
LONG_RUNNING = {"postgres", "redis", "storage", "mlflow", "api-server", "scheduler", "dag-processor", "triggerer"}
WORKERS = {"worker": 1, "gpu-worker": 2}
LINE = "colours"
"""A dataset line that the deployment watches: a folder of `SOURCES`."""


@dataclass
class Deployment:
    tree: Path
    command: list[str]
    environment: dict[str, str]
    secrets: dict[str, str] = field(default_factory=dict, repr=False)
    seconds_to_health: float = 0.0

    @property
    def delivered(self) -> Path:
        """The folder of the dataset line, on this machine."""
        return Path(self.environment["SOURCES"]) / LINE

    @property
    def airflow_url(self) -> str:
        return f"http://127.0.0.1:{self.environment['AIRFLOW_PORT']}"

    @property
    def mlflow_url(self) -> str:
        return f"http://127.0.0.1:{self.environment['MLFLOW_PORT']}"

    def write_secrets(self) -> None:
        """Write new ones in place of the old ones."""
        (self.tree / ".env").unlink(missing_ok=True)
        self.make("secrets")
        self.secrets = dict(re.findall(r"^([A-Z0-9_]+)=(.+)$", (self.tree / ".env").read_text(), re.MULTILINE))

    def make(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        command = ["make", *words, f"COMPOSE={shlex.join(self.command)}"]
        done = subprocess.run(
            command, cwd=self.tree, env=self.environment, capture_output=True, text=True, check=False, timeout=900
        )
        assert not check or done.returncode == 0, f"{words}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done

    def compose(self, *words: str, check: bool = True, timeout: float = 900) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*self.command, *words],
            cwd=self.tree,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
        assert not check or done.returncode == 0, f"{words}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done

    def python(self, service: str, code: str, check: bool = True) -> str:
        """What a program prints in a running container, with that service's environment."""
        done = self.compose("exec", "-T", service, "python", "-c", code, check=check)
        return done.stdout + ("" if check else done.stderr)

    def containers(self, service: str) -> list[str]:
        return self.compose("ps", "-q", service).stdout.split()

    def docker(self, *words: str, check: bool = True) -> str:
        done = subprocess.run(["docker", *words], capture_output=True, text=True, check=False, timeout=300)
        assert not check or done.returncode == 0, f"docker {words}: {done.stderr}"
        return done.stdout.strip()

    def airflow(self, path: str) -> Any:
        """What Airflow's API says of the DAG."""
        answer = requests.get(
            f"{self.airflow_url}/api/v2/dags/{TRAINING_DAG}/{path}",
            headers={"Authorization": f"Bearer {self.token()}", "Accept": "application/json"},
            timeout=60,
        )
        assert answer.ok, answer.text
        return answer.json()

    def token(self) -> str:
        login = {"username": "admin", "password": self.secrets["AIRFLOW_ADMIN_PASSWORD"]}
        answer = requests.post(f"{self.airflow_url}/auth/token", json=login, timeout=30)
        assert answer.ok, answer.text
        return str(answer.json()["access_token"])

    def health(self, container: str) -> str:
        return self.docker("inspect", "--format", "{{if .State.Health}}{{.State.Health.Status}}{{end}}", container)

    def wait_until_healthy(self, seconds: float) -> float:
        """Until every container of every service is; returns how long that took."""
        began, wanted = time.monotonic(), {**dict.fromkeys(LONG_RUNNING, 1), **WORKERS}
        while True:
            healthy = {name: [self.health(each) for each in self.containers(name)] for name in wanted}
            if all(healthy[name] == ["healthy"] * count for name, count in wanted.items()):
                return time.monotonic() - began
            assert time.monotonic() - began < seconds, f"after {seconds:.0f} s: {healthy}"
            time.sleep(2)


@contextmanager
def deployed(tree: Path, command: list[str]) -> Iterator[Deployment]:
    """Build its images and start it from a copy in `tree`; delete it with its data at the end."""
    tracked = subprocess.run(["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True, check=True, timeout=30)
    for name in tracked.stdout.splitlines():
        if (PROJECT / name).exists():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(PROJECT / name, tree / name)
    ports = free_ports()
    environment = {
        **os.environ,
        "COMPOSE_PROJECT_NAME": f"cifartest{uuid.uuid4().hex[:6]}",
        "CIFAR_IMAGES": "cifartest",
        "AIRFLOW_PORT": str(ports.airflow_port),
        "MLFLOW_PORT": str(ports.mlflow_port),
        "CIFAR_GPU_SLOTS": str(WORKERS["gpu-worker"]),
        "SOURCES": str(tree / "sources"),
        "CIFAR_DATASET_LINES": json.dumps({LINE: {"source": f"/sources/{LINE}", "marker": "_COMPLETE"}}),
        "CIFAR_SOURCE": f"line:{LINE}",
        "CIFAR_MODELS": "cnn",
    }
    running = Deployment(tree, command, environment)
    running.delivered.mkdir(parents=True)
    running.write_secrets()
    try:
        running.compose("build", timeout=3000)
        began = time.monotonic()
        running.compose("up", "-d")
        running.wait_until_healthy(300)
        running.seconds_to_health = time.monotonic() - began
        yield running
    finally:
        running.compose("down", "--volumes", "--remove-orphans", check=False)
