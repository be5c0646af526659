"""What a check is given and what it tells; runs all of them beside each other, and shows no secret."""

import inspect
import json
import os
import re
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import unquote

from cifar_tasks.deployment import stack
from cifar_tasks.deployment.probes import ProbeError
from cifar_tasks.errors import CifarError, StackError
from cifar_tasks.settings import Settings
from cifar_tasks.storage.s3 import S3Store, s3_client

Status = Literal["ok", "warning", "failure", "skipped"]


class Finding(Exception):
    """Raised by a check that is not ok. `remedy` replaces the remedy of the check."""

    def __init__(self, status: Status, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.status, self.remedy = status, remedy


def grade(message: str, *, warning: bool = False, failure: bool = False) -> str:
    """The message, raised if it is a warning or a failure."""
    if failure or warning:
        raise Finding("failure" if failure else "warning", message)
    return message


@dataclass(frozen=True)
class Deployment:
    settings: Settings
    embedded: bool  # the embedded stack has one user, one S3 identity, one database role, and no Celery
    airflow_url: str = ""
    airflow_password: str = field(default="", repr=False)
    now: Callable[[], float] = time.time  # the clock of this machine
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)  # of the user's shell

    # Where a warning or a failure begins: sizes in bytes, times in seconds.
    timeout: float = 5.0  # for one answer of a service
    torch_timeout: float = 30.0  # the import of torch takes 10 s on a busy machine with a cold disk
    oldest_postgresql: int = 13  # Airflow 3 supports none older
    clock_warning: float = 30.0
    clock_failure: float = 300.0  # at 15 minutes S3 refuses every request
    disk_warning: float = 10e9
    disk_failure: float = 2e9
    memory_warning: float = 4e9
    shared_memory_warning: float = 1e9  # of /dev/shm, where training processes exchange images and gradients

    def store(self) -> S3Store:
        return S3Store(self.settings.bucket, s3_client(attempts=1, read_timeout=self.timeout))

    def start(self, services: Collection[str]) -> str:
        """How to start services of the embedded stack, or of compose, and where to read why they stopped."""
        if self.embedded:
            logs = ", ".join(f"{self.settings.home}/logs/{name}.log" for name in services or "*")
            return f"cifar up (first cifar down if it hangs); the reason: {logs}"
        names = "".join(f" {name.removeprefix('airflow-').replace('s3', 'storage')}" for name in services)
        return f"docker compose up -d{names} (restart if it hangs); the reason: docker compose logs{names}"

    def hints(self) -> dict[str, str]:
        """What a remedy may hold in braces."""
        if self.embedded:
            return {"restart": "cifar down, then cifar up", "secrets": f"{self.settings.home}/secrets.json"}
        return {"restart": "docker compose up -d", "secrets": ".env"}


def find_deployment(settings: Settings, variables: Mapping[str, str] | None = None) -> Deployment:
    """The deployment that this process is a client of; `StackError` when there is none. `variables` are those that the
    user's shell had before."""
    address, home = os.environ.get("MLFLOW_TRACKING_URI"), settings.home
    if not address:
        raise StackError("There is no deployment here: `cifar up`, or `docker compose run --rm cifar doctor`.")
    embedded = stack.exists(home) and stack.environment(home)["MLFLOW_TRACKING_URI"] == address
    password = settings.airflow_password.get_secret_value() if settings.airflow_password else ""
    if embedded and not password and stack.password_file(home).exists():
        password = json.loads(stack.password_file(home).read_text())[stack.AIRFLOW_USER]
    address = settings.airflow_api or settings.airflow_url or ""
    return Deployment(settings, embedded, address, password, variables=variables or {})


@dataclass(frozen=True)
class Check:
    area: str
    name: str
    function: Callable[[Deployment], str]
    """Returns a message, or raises. Its docstring is the remedy, as that of a command is its help."""
    needs: tuple[str, ...] = ()  # earlier checks that must pass, or this one is skipped with their reason
    services: tuple[str, ...] = ()  # to be started when there is no answer


@dataclass(frozen=True)
class CheckResult:
    area: str
    check: str
    status: Status
    message: str
    remedy: str = ""


def run_checks(deployment: Deployment, checks: Collection[Check]) -> list[CheckResult]:
    """One result per check, in their order."""
    secrets = known_secrets(os.environ | {"AIRFLOW_PASSWORD": deployment.airflow_password})
    futures: dict[str, Future[CheckResult]] = {}
    with ThreadPoolExecutor(len(checks)) as pool:
        for check in checks:
            needed = [futures[name] for name in check.needs if name in futures]
            futures[check.name] = pool.submit(_run, check, deployment, needed, secrets)
    return [future.result() for future in futures.values()]


def _run(check: Check, deployment: Deployment, needed: list[Future[CheckResult]], secrets: list[str]) -> CheckResult:
    def result(status: Status, message: str, remedy: str = "") -> CheckResult:
        for secret in secrets:  # a client library may quote the URL that it was given
            message, remedy = message.replace(secret, "***"), remedy.replace(secret, "***")
        return CheckResult(check.area, check.name, status, message, remedy)

    for other in (future.result() for future in needed):
        if other.status in ("failure", "skipped"):
            return result("skipped", f"see {other.check}" if other.status == "failure" else other.message)
    remedy = " ".join((inspect.getdoc(check.function) or "").split()).format(**deployment.hints())
    start = deployment.start(check.services)
    try:
        return result("ok", check.function(deployment))
    except Finding as found:
        return result(found.status, str(found), "" if found.status == "skipped" else found.remedy or remedy or start)
    except CifarError as error:
        unwell = isinstance(error, ProbeError) and (error.code is None or error.code.startswith("5"))
        return result("failure", str(error), start if unwell else remedy or start)
    except Exception as error:  # whatever a client library raises is one line of the table
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return result("failure", f"could not be checked: {first}", start)


def known_secrets(variables: Mapping[str, str]) -> list[str]:
    """Values of variables named like secrets, and passwords in URLs as written and decoded; the longest first."""
    found = {value for name, value in variables.items() if re.search(r"SECRET|(PASSWORD|TOKEN|_KEY)$", name)}
    for value in variables.values():
        for password in re.findall(r"://[^:@/]*:([^/]*)@", value):
            found |= {password, unquote(password)}
    # To replace shorter ones would damage words.
    return sorted((secret for secret in found if len(secret) >= 8), key=len, reverse=True)
