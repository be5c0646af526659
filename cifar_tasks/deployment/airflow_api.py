"""Airflow's public API, logged in, and what it tells about the DAGs."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from cifar_tasks.errors import StackError

if TYPE_CHECKING:
    from airflow_client.client import ApiClient
    from airflow_client.client.models.dag_response import DAGResponse

DAG = "cifar10_training"
PROMOTION_DAG = "cifar10_promotion"
REQUEST_SECONDS = 30.0
"""Limit of one request, where its caller gives none."""


@contextmanager
def airflow(url: str, user: str, password: str) -> Iterator["ApiClient"]:
    """A client that is logged in; `StackError` when Airflow refuses the log-in or stops answering."""
    from airflow_client.client import ApiClient, Configuration
    from airflow_client.client.exceptions import OpenApiException
    from pydantic import ValidationError
    from urllib3 import Retry
    from urllib3.exceptions import HTTPError

    token = _log_in(url, user, password)
    try:
        # A request that got no answer in time is not sent three times more.
        retries = Retry(connect=2, read=0, backoff_factor=0.5)
        with ApiClient(Configuration(host=url, access_token=token, retries=retries)) as client:
            request = client.rest_client.request

            def limited(*words: Any, _request_timeout: float | None = None, **named: Any) -> Any:
                return request(*words, _request_timeout=_request_timeout or REQUEST_SECONDS, **named)

            client.rest_client.request = limited
            yield client
    except (OpenApiException, HTTPError, ValidationError) as error:
        raise StackError(
            f"Airflow at {url} did not answer as expected: {reason(error)}. Check it: `cifar doctor`"
        ) from error


def _log_in(url: str, user: str, password: str) -> str:
    import requests

    try:
        response = requests.post(
            f"{url}/auth/token", json={"username": user, "password": password}, timeout=REQUEST_SECONDS
        )
    except (requests.RequestException, ValueError) as error:  # ValueError: of an address that is none
        raise StackError(f"Airflow at {url} does not answer. Check its address and: `cifar doctor`") from error
    if response.status_code in (401, 403):
        raise StackError(
            f"Airflow at {url} refused the log-in of {user} ({response.status_code}): its password is another one."
        )
    try:
        return str(response.json()["access_token"])
    except (ValueError, LookupError, TypeError):
        raise StackError(
            f"what answers at {url} is no Airflow that works ({response.status_code} {response.reason}). "
            "Check its address and: `cifar doctor`"
        ) from None


def reason(error: Exception) -> str:
    """One line, without the headers that Airflow's client prints."""
    status, text = getattr(error, "status", None), getattr(error, "reason", None) or error
    first = (str(text).strip().splitlines() or [type(error).__name__])[0]
    return f"{status} {first}" if status else first


def find_dag(client: "ApiClient", dag_id: str = DAG, **named: Any) -> "DAGResponse | None":
    """None as long as Airflow has not parsed it."""
    from airflow_client.client.api.dag_api import DAGApi
    from airflow_client.client.exceptions import NotFoundException

    try:
        return DAGApi(client).get_dag(dag_id, **named)
    except NotFoundException:
        return None


def import_errors(client: "ApiClient", **named: Any) -> list[str]:
    """`FILE: the last line of the error` for each DAG file that Airflow could not import."""
    from airflow_client.client.api.import_error_api import ImportErrorApi

    found = ImportErrorApi(client).get_import_errors(**named).import_errors
    return [f"{each.filename}: {(each.stack_trace.strip().splitlines() or ['no reason'])[-1]}" for each in found]
