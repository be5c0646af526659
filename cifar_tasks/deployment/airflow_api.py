"""Airflow's public API, logged in."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cifar_tasks.errors import StackError

if TYPE_CHECKING:
    from airflow_client.client import ApiClient


@contextmanager
def airflow(url: str, user: str, password: str) -> Iterator["ApiClient"]:
    """A client that is logged in; `StackError` when Airflow refuses the log-in or stops answering."""
    import requests
    from airflow_client.client import ApiClient, Configuration
    from airflow_client.client.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    try:
        response = requests.post(f"{url}/auth/token", json={"username": user, "password": password}, timeout=30)
    except requests.RequestException as error:
        raise StackError(f"Airflow at {url} does not answer. Look: `cifar status`") from error
    if not response.ok:
        raise StackError(f"Airflow at {url} refused the log-in of {user} ({response.status_code}).")
    try:
        with ApiClient(Configuration(host=url, access_token=response.json()["access_token"])) as client:
            yield client
    except (ApiException, HTTPError) as error:
        raise StackError(f"Airflow at {url} did not answer as expected: {error}. Look: `cifar status`") from error
