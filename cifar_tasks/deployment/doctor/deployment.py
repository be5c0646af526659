"""What every check is given: which deployment it looks at, with which limits. Addresses are in the environment."""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from cifar_tasks.deployment import stack
from cifar_tasks.errors import StackError
from cifar_tasks.settings import Settings

TIMEOUT = 5.0
"""Seconds that a service is given for an answer."""

_PARTS = {
    "postgres": ("postgres", "postgres"),
    "redis": ("redis", "redis"),
    "S3": ("s3", "storage"),
    "MLflow": ("mlflow", "mlflow"),
    "Airflow": ("airflow-api-server", "api-server"),
    "scheduler": ("airflow-scheduler", "scheduler"),
    "dag-processor": ("airflow-dag-processor", "dag-processor"),
    "triggerer": ("airflow-triggerer", "triggerer"),
}
"""What the embedded stack and docker-compose.yaml call the services."""
_SECRET = ("PASSWORD", "SECRET", "TOKEN", "_KEY")


@dataclass(frozen=True)
class Limits:
    """Where a warning begins, and where a failure."""

    clock_warning: float = 30.0
    """Seconds between two clocks."""
    clock_failure: float = 300.0
    """Seconds; at 15 minutes S3 refuses every signature."""
    disk_warning: float = 10e9
    """Bytes free."""
    disk_failure: float = 2e9
    memory_warning: float = 4e9
    """Bytes available to new programs."""
    shared_memory_warning: float = 1e9
    """Bytes free in /dev/shm, through which the processes of a training hand on images and gradients."""


@dataclass(frozen=True)
class Deployment:
    settings: Settings
    embedded: bool
    """Whether it is the embedded stack of this machine: one user, one S3 identity, one database role, no Celery."""
    limits: Limits = field(default_factory=Limits)
    now: Callable[[], float] = time.time
    """This machine's clock."""

    @property
    def airflow(self) -> str | None:
        return self.settings.airflow_api or self.settings.airflow_url

    def airflow_password(self) -> str | None:
        if self.settings.airflow_password:
            return self.settings.airflow_password.get_secret_value()
        file = stack.password_file(self.settings.home)
        if self.embedded and file.exists():
            return str(json.loads(file.read_text())[stack.AIRFLOW_USER])
        return None

    def start(self, *services: str) -> str:
        """How a person starts them, and where to read why they stopped."""
        if self.embedded:
            logs = ", ".join(str(self.settings.home / "logs" / f"{_PARTS[name][0]}.log") for name in services)
            return f"cifar up (if it hangs, cifar down first); why: {logs}"
        names = " ".join(_PARTS[name][1] for name in services)
        return f"docker compose up -d {names} (restart, if it hangs); why: docker compose logs {names}"

    def secrets_in(self) -> Path:
        return self.settings.home / "secrets.json" if self.embedded else Path(".env")


def find_deployment(settings: Settings) -> Deployment:
    """The one that this process is a client of; `StackError` when there is none."""
    address = os.environ.get("MLFLOW_TRACKING_URI")
    if not address:
        raise StackError(
            "There is no deployment here. Start the embedded stack: `cifar up`. "
            "Of a compose deployment: `docker compose run --rm cifar doctor`."
        )
    own = stack.exists(settings.home) and stack.environment(settings.home)["MLFLOW_TRACKING_URI"] == address
    return Deployment(settings, embedded=own)


def known_secrets(variables: Mapping[str, str]) -> Iterator[str]:
    """Values that must never be shown: those of variables named like secrets, and the passwords of URLs."""
    for name, value in variables.items():
        if name.endswith(_SECRET) or "SECRET" in name:
            yield value
        if "://" in value and "@" in value:
            password = _password(value)
            yield from (password, unquote(password))


def _password(url: str) -> str:
    try:
        return urlsplit(url).password or ""
    except ValueError:  # too broken for a URL: whatever could be one
        return url.split("://", 1)[1].rsplit("@", 1)[0].partition(":")[2]
