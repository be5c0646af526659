"""What a check is given and what it tells; runs all of them beside each other, and shows no secret."""

import inspect
import os
import re
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import unquote

from cifar_tasks.deployment import airflow_api, probes, stack
from cifar_tasks.errors import CifarError, StackError
from cifar_tasks.settings import Settings
from cifar_tasks.storage.hosts import without_login
from cifar_tasks.storage.s3 import S3Store, s3_client


@dataclass
class Finding(Exception):
    """What a check finds; raised where it is not ok. A `remedy` replaces that of the check."""

    status: Literal["ok", "warning", "failure", "skipped"]
    message: str
    remedy: str = ""


def judge(message: str, *, skipped: bool = False, warning: bool = False, failure: bool = False) -> str:
    """The message, raised if the check is skipped for this reason, or if it is a warning or a failure."""
    if skipped or warning or failure:
        raise Finding("failure" if failure else "warning" if warning else "skipped", message)
    return message


@dataclass(frozen=True)
class Deployment:
    settings: Settings
    embedded: bool  # the embedded stack has one user, one S3 identity, one database role, and no Celery
    airflow_url: str = ""
    airflow_user: str = stack.AIRFLOW_USER
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

    def airflow(self) -> AbstractContextManager[Any]:
        return airflow_api.airflow(self.airflow_url, self.airflow_user, self.airflow_password, self.timeout)

    def hints(self, services: Collection[str]) -> dict[str, str]:
        """What a remedy may hold in braces. `start` has these services, and where to read why they stopped."""
        if self.embedded:
            logs = ", ".join(f"{self.settings.home}/logs/{name}.log" for name in services or "*")
            start, restart = f"cifar up (first cifar down if it hangs); the reason: {logs}", "cifar down, then cifar up"
            return {"start": start, "restart": restart, "secrets": f"{self.settings.home}/secrets.json"}
        names = "".join(f" {name.removeprefix('airflow-').replace('s3', 'storage')}" for name in services)
        start = f"docker compose up -d{names} (restart if it hangs); the reason: docker compose logs{names}"
        return {"start": start, "restart": "docker compose up -d", "secrets": ".env"}


def find_deployment(settings: Settings, variables: Mapping[str, str] | None = None) -> Deployment:
    """The deployment of which this process is a client, or `StackError`. `variables` are those of the user's shell."""
    server, home = os.environ.get("MLFLOW_TRACKING_URI"), settings.home
    if not server:
        raise StackError("There is no deployment here: `cifar up`, or `docker compose run --rm cifar doctor`.")
    embedded = stack.exists(home) and stack.environment(home)["MLFLOW_TRACKING_URI"] == server
    user, given = settings.airflow_user, settings.airflow_password
    password = given.get_secret_value() if given else ""
    if embedded and not settings.airflow_api:
        user, password = stack.AIRFLOW_USER, stack.airflow_password(home)
    airflow_url = settings.airflow_api or settings.airflow_url or ""
    return Deployment(settings, embedded, airflow_url, user, password, variables=variables or {})


@dataclass(frozen=True)
class Check:
    area: str
    name: str
    function: Callable[[Deployment], str]
    """Returns a message, or raises. Its docstring is the remedy, as that of a command is its help."""
    needs: tuple[str, ...] = ()  # earlier checks that must pass, or this one is skipped with their reason
    services: tuple[str, ...] = ()  # to be started when there is no answer; without any another check tells of that


def run_checks(deployment: Deployment, checks: Collection[Check]) -> dict[str, Finding]:
    """What each check finds, by its name and in their order."""
    secrets = known_secrets(os.environ | {"AIRFLOW_PASSWORD": deployment.airflow_password})
    futures: dict[str, Future[Finding]] = {}
    with ThreadPoolExecutor(len(checks)) as pool:
        for check in checks:
            needed = {name: futures[name] for name in check.needs if name in futures}
            futures[check.name] = pool.submit(_run, check, deployment, needed, secrets)
    return {name: future.result() for name, future in futures.items()}


def _run(check: Check, deployment: Deployment, needed: dict[str, Future[Finding]], secrets: list[str]) -> Finding:
    """A finding without a remedy has that of the check, or that the services of the check are to be started."""
    try:
        for name, other in ((name, future.result()) for name, future in needed.items()):
            judge(f"see {name}", skipped=other.status == "failure")
            judge(other.message, skipped=other.status == "skipped")
        found = Finding("ok", check.function(deployment))
    except Finding as finding:
        found = finding
    except CifarError as error:
        code = error.code if isinstance(error, probes.ProbeError) else "of no service"
        absent = code is None and not check.services
        unwell = code is None or code.startswith("5")
        found = Finding("skipped" if absent else "failure", str(error), "{start}" if unwell else "")
    except Exception as error:  # whatever a client library raises is one line of the table
        found = Finding("failure", f"could not be checked: {airflow_api.reason(error)}", "{start}")
    remedy = found.remedy or inspect.getdoc(check.function) or "{start}"
    remedy = "" if found.status in ("ok", "skipped") else remedy.format(**deployment.hints(check.services))
    # A client library may quote the URL that it was given.
    texts = [without_login(text) for text in (found.message, " ".join(remedy.split()))]
    for secret in secrets:
        texts = [text.replace(secret, "***") for text in texts]
    return Finding(found.status, *texts)


def known_secrets(variables: Mapping[str, str]) -> list[str]:
    """Values of variables named like secrets, and passwords in URLs as written and decoded; the longest first."""
    found = {value for name, value in variables.items() if re.search(r"SECRET|(PASSWORD|TOKEN|_KEY)$", name)}
    for value in variables.values():
        for password in re.findall(r"://[^:@/]*:([^/]*)@", value):
            found |= {password, unquote(password)}
    return sorted((secret for secret in found if len(secret) >= 8), key=len, reverse=True)  # shorter: perhaps words
