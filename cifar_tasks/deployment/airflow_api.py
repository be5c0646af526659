"""Airflow's public API, logged in, and what it tells about the DAGs."""

import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from cifar_tasks.deployment import stack
from cifar_tasks.deployment.dag_ids import TRAINING_DAG
from cifar_tasks.errors import ConfigError, StackError
from cifar_tasks.settings import Settings
from cifar_tasks.storage.hosts import without_login

if TYPE_CHECKING:
    from airflow_client.client import ApiClient
    from airflow_client.client.models.dag_response import DAGResponse

REQUEST_SECONDS = 30.0
"""Limit of one request."""
START_SECONDS = 120.0
"""After a deployment was started, until its API server listens."""


@dataclass(frozen=True)
class Access:
    """An Airflow, who logs in to it, and hints for the person."""

    url: str
    password: str = field(repr=False)
    hints: Mapping[str, str]
    user: str = stack.AIRFLOW_USER


def access_to_deployment(settings: Settings) -> Access | None:
    """The Airflow of the settings, if they name one; `ConfigError` if they do so without its password."""
    if not settings.airflow_api:
        return None
    if not settings.airflow_password:
        raise ConfigError(
            f"CIFAR_AIRFLOW_API is {without_login(settings.airflow_api)}, and CIFAR_AIRFLOW_PASSWORD is not set. Set "
            f"the password of {settings.airflow_user}, or unset the address to use the embedded stack."
        )
    hints = {"Log in": "user admin, password in .env: AIRFLOW_ADMIN_PASSWORD (MLflow: MLFLOW_ADMIN_PASSWORD)"}
    return Access(settings.airflow_api, settings.airflow_password.get_secret_value(), hints, settings.airflow_user)


def access_to_embedded_stack(home: Path) -> Access:
    """The Airflow of the stack in `home`."""
    hints = {
        "Log in": f"user {stack.AIRFLOW_USER}, password in {stack.password_file(home)}",
        "Stop": "make down   (runs, models and data are kept)",
    }
    return Access(stack.environment(home)["CIFAR_AIRFLOW_URL"], stack.airflow_password(home), hints)


def access_to_airflow(settings: Settings) -> Access:
    """The Airflow of the settings, else that of the embedded stack; `ConfigError` if there is neither."""
    if access := access_to_deployment(settings):
        return access
    if stack.exists(settings.home):
        return access_to_embedded_stack(settings.home)
    raise ConfigError("there is no log-in to an Airflow: CIFAR_AIRFLOW_API and CIFAR_AIRFLOW_PASSWORD are not set.")


def is_starting(url: str) -> bool:
    """Whether nothing listens there: perhaps the server is just being started. The log-in tells what else is wrong."""
    try:
        address = urlsplit(url)
        where = address.hostname or "", address.port or (443 if address.scheme == "https" else 80)
        socket.create_connection(where, timeout=5).close()
    except ConnectionRefusedError:
        return True
    except (OSError, ValueError):  # ValueError: of an address that is none
        return False
    return False


def wait_for_server(url: str, seconds: float) -> None:
    """Wait as long as it is starting."""
    deadline = time.monotonic() + seconds
    while is_starting(url) and time.monotonic() < deadline:
        time.sleep(1)


@contextmanager
def airflow(url: str, user: str, password: str, seconds: float | None = None) -> Iterator["ApiClient"]:
    """A client that is logged in; `StackError` when Airflow refuses the log-in or stops answering.

    `seconds` is the limit of one request, in place of `REQUEST_SECONDS`. A log-in may take longer: it is more work.
    """
    from airflow_client.client import ApiClient, Configuration
    from airflow_client.client.exceptions import OpenApiException
    from pydantic import ValidationError
    from urllib3 import Retry
    from urllib3.exceptions import HTTPError

    limit = seconds or REQUEST_SECONDS
    token = _log_in(url, user, password)
    try:
        # A request that got no answer in time is not sent three times more.
        retries = Retry(connect=2, read=0, backoff_factor=0.5)
        with ApiClient(Configuration(host=url, access_token=token, retries=retries)) as client:
            request = client.rest_client.request

            def limited(*words: Any, _request_timeout: float | None = None, **named: Any) -> Any:
                return request(*words, _request_timeout=_request_timeout or limit, **named)

            client.rest_client.request = limited
            yield client
    except (OpenApiException, HTTPError, ValidationError) as error:
        raise StackError(
            f"Airflow at {without_login(url)} did not answer as expected: {reason(error)}. Check it: `cifar doctor`"
        ) from error


def _log_in(url: str, user: str, password: str) -> str:
    import requests

    shown = without_login(url)
    try:
        response = requests.post(
            f"{url}/auth/token", json={"username": user, "password": password}, timeout=REQUEST_SECONDS
        )
    except (requests.RequestException, ValueError) as error:  # ValueError: of an address that is none
        raise StackError(f"Airflow at {shown} does not answer. Check its address and: `cifar doctor`") from error
    if response.status_code in (401, 403):
        raise StackError(
            f"Airflow at {shown} refused the log-in of {user} ({response.status_code}): its password is another one."
        )
    try:
        return str(response.json()["access_token"])
    except (ValueError, LookupError, TypeError):
        raise StackError(
            f"what answers at {shown} is no Airflow that works ({response.status_code} {response.reason}). "
            "Check its address and: `cifar doctor`"
        ) from None


def reason(error: Exception) -> str:
    """One line, without the headers that Airflow's client prints."""
    status, text = getattr(error, "status", None), getattr(error, "reason", None) or error
    first = (str(text).strip().splitlines() or [type(error).__name__])[0]
    return f"{status} {first}" if status else first


def find_dag(client: "ApiClient", dag_id: str = TRAINING_DAG) -> "DAGResponse | None":
    """None as long as Airflow has not parsed it."""
    from airflow_client.client.api.dag_api import DAGApi
    from airflow_client.client.exceptions import NotFoundException

    try:
        return DAGApi(client).get_dag(dag_id)
    except NotFoundException:
        return None


def paused_dags(client: "ApiClient") -> list[str]:
    """Ids."""
    from airflow_client.client.api.dag_api import DAGApi

    return [dag.dag_id for dag in DAGApi(client).get_dags(paused=True).dags]


def import_errors(client: "ApiClient", dag_id: str | None = None) -> list[str]:
    """`FILE: the last line of the error` for each DAG file that Airflow could not import, or for that of one DAG."""
    from airflow_client.client.api.import_error_api import ImportErrorApi

    found = ImportErrorApi(client).get_import_errors().import_errors
    return [
        f"{each.filename}: {(each.stack_trace.strip().splitlines() or ['no reason'])[-1]}"
        for each in found
        if dag_id in (None, PurePath(each.filename).stem)
    ]


MAX_NOTE = 1000
"""Characters of a note: Airflow's own limit."""


def set_note(settings: Settings, dag_id: str, run_id: str, lines: list[str]) -> None:
    """Add these lines of Markdown, once, to the note of a DAG run; those that do not fit are left out.

    `ConfigError` if this process has no log-in to Airflow: its tasks have none unless the settings give them one.
    """
    access = access_to_airflow(settings)
    from airflow_client.client.api.dag_run_api import DagRunApi
    from airflow_client.client.models.dag_run_patch_body import DAGRunPatchBody

    with airflow(access.url, access.user, access.password) as client:
        api = DagRunApi(client)
        note = api.get_dag_run(dag_id, run_id).note or ""  # a person may have written one
        for line in lines:
            if line not in note.splitlines() and len(note) + 1 + len(line) <= MAX_NOTE:
                note = f"{note}\n{line}".strip()
        api.patch_dag_run(dag_id, run_id, DAGRunPatchBody(note=note), update_mask=["note"])


def pool_slots(client: "ApiClient") -> int:
    """Of the pool `gpu`; 0 if there is none."""
    from airflow_client.client.api.pool_api import PoolApi

    return sum(pool.slots for pool in PoolApi(client).get_pools().pools if pool.name == "gpu")


def longest_task(client: "ApiClient") -> float:
    """The longest `execution_timeout` of all tasks of all DAGs, in seconds."""
    from airflow_client.client.api.dag_api import DAGApi
    from airflow_client.client.api.task_api import TaskApi

    tasks = [task for dag in DAGApi(client).get_dags().dags for task in TaskApi(client).get_tasks(dag.dag_id).tasks]
    limits = [task.execution_timeout for task in tasks if task.execution_timeout]
    return max((limit.days * 86_400.0 + limit.seconds for limit in limits), default=0.0)
