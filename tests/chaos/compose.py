"""Faults in the containers of a compose deployment: SIGKILL, a pause, a network that is cut."""

import json
import os
import random
import shlex
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cifar_tasks.errors import StackError
from tests.chaos.runs import STEP
from tests.compose.deployment import LONG_RUNNING, WORKERS, Deployment, deployed

NETWORK = "inside"
EXPECTED = Counter(dict.fromkeys(LONG_RUNNING, 1) | WORKERS | {"promotion-worker": 1})
"""Running containers of each service."""


class ComposeDeployment:
    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.airflow_url = deployment.airflow_url
        self.airflow_password = deployment.secrets["AIRFLOW_ADMIN_PASSWORD"]
        self.network = f"{deployment.environment['COMPOSE_PROJECT_NAME']}_{NETWORK}"

    def up(self) -> None:
        done = self.deployment.compose("up", "-d", check=False)
        if done.returncode:
            raise StackError(f"docker compose up: {done.stderr.strip().splitlines()[-1]}")

    def ended(self) -> list[str]:
        return sorted((EXPECTED - Counter(service for _, service in self.containers())).elements())

    def containers(self) -> list[tuple[str, str]]:
        """Ids and services of those that run."""
        listed = self.deployment.compose("ps", "--format", "json").stdout.splitlines()
        return sorted((each["ID"], each["Service"]) for each in map(json.loads, listed) if each["State"] == "running")

    def fault(self, chance: random.Random) -> str | None:
        container, service = chance.choice(self.containers())
        kind = chance.choice(["SIGKILL container", "SIGKILL process", "pause", "network cut"])
        docker = self.deployment.docker
        if kind == "SIGKILL container":
            docker("kill", container)
        elif kind == "SIGKILL process":
            return self.kill_process(container, service, chance)
        elif kind == "pause":
            docker("pause", container)
            time.sleep(chance.uniform(3, 30))
            docker("unpause", container)
        else:
            docker("network", "disconnect", self.network, container)
            time.sleep(chance.uniform(3, 30))
            docker("network", "connect", "--alias", service, self.network, container)
        return f"{kind} {service}"

    def kill_process(self, container: str, service: str, chance: random.Random) -> str | None:
        """Any but the first, whose end is that of the container."""
        inside = ["exec", container, "sh", "-c"]
        found = self.deployment.docker(*inside, "ls -d /proc/[0-9]*; echo $$", check=False).split()
        own = found.pop() if found else ""
        processes = [path.removeprefix("/proc/") for path in found]
        if not (others := sorted(set(processes) - {"1", own})):
            return None
        process = chance.choice(others)
        command = self.deployment.docker(*inside, f"cat /proc/{process}/cmdline && kill -9 {process}", check=False)
        return f"SIGKILL process of {'step' if STEP in command else service}" if command else None

    def steps(self) -> list[str]:
        found = [
            self.deployment.docker("top", container, "-eo", "pid,args").splitlines()
            for container, service in self.containers()
            if "worker" in service
        ]
        return [line for lines in found for line in lines if STEP in line]

    def keys(self, bucket: str, prefix: str) -> Iterator[str]:
        code = f"from cifar_tasks.storage.s3 import S3Store\nprint(*S3Store('{bucket}').keys('{prefix}'), sep='\\n')"
        listed = self.deployment.compose("run", "--rm", "-T", "--entrypoint", "python", "backup", "-c", code)
        return iter(listed.stdout.split())


@contextmanager
def compose_deployment() -> Iterator[ComposeDeployment]:
    """Built from this tree, with ports and secrets of its own; deleted with its data at the end."""
    command = shlex.split(os.environ.get("COMPOSE", "docker compose"))
    if subprocess.run(["docker", "info"], capture_output=True, check=False, timeout=30).returncode:
        raise SystemExit("No Docker engine answers. Start one, then try again.")
    with tempfile.TemporaryDirectory() as folder, deployed(Path(folder), command) as deployment:
        os.environ |= {
            "MLFLOW_TRACKING_URI": deployment.mlflow_url,
            "MLFLOW_TRACKING_USERNAME": "reader",
            "MLFLOW_TRACKING_PASSWORD": deployment.secrets["MLFLOW_READER_PASSWORD"],
        }
        yield ComposeDeployment(deployment)
