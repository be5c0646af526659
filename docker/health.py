"""Asks a service a real question; the exit status says whether it answered. `health.py ROLE`, for compose."""

import base64
import json
import os
import sys
import urllib.request
from collections.abc import Callable
from typing import Any


def storage() -> bool:
    """A signed request that reads the filer's list of buckets."""
    import boto3

    return "Buckets" in boto3.client("s3").list_buckets()


def mlflow() -> bool:
    """An API call with log-in under the service's name, so that its check of host names is asked as well."""
    login = base64.b64encode(f"admin:{os.environ['MLFLOW_AUTH_ADMIN_PASSWORD']}".encode()).decode()
    url = "http://mlflow:5000/api/2.0/mlflow/experiments/search?max_results=1"
    return "experiments" in _json(url, {"Authorization": f"Basic {login}"})


def api_server() -> bool:
    return _airflow("metadatabase")


def scheduler() -> bool:
    return _airflow("scheduler")


def dag_processor() -> bool:
    return _airflow("dag_processor")


def triggerer() -> bool:
    return _airflow("triggerer")


def worker() -> bool:
    """A ping through Redis, answered by this container's worker."""
    from celery import Celery

    app = Celery(broker=os.environ["AIRFLOW__CELERY__BROKER_URL"])
    name = f"{sys.argv[2]}@{os.uname().nodename}"
    return bool(app.control.ping(destination=[name], timeout=10))


def flower() -> bool:
    with urllib.request.urlopen("http://localhost:5555/healthcheck", timeout=10) as answer:
        return bool(answer.status == 200)


def _airflow(component: str) -> bool:
    """The component's heartbeat, as the database knows it."""
    url = os.environ["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"].removesuffix("/execution/")
    return bool(_json(f"{url}/api/v2/monitor/health")[component]["status"] == "healthy")


def _json(url: str, headers: dict[str, str] | None = None) -> Any:
    request = urllib.request.Request(url, headers=headers or {})  # noqa: S310 – our own addresses
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        return json.load(answer)


CHECKS: dict[str, Callable[[], bool]] = {
    check.__name__.replace("_", "-"): check
    for check in (storage, mlflow, api_server, scheduler, dag_processor, triggerer, worker, flower)
}

if __name__ == "__main__":
    sys.exit(not CHECKS[sys.argv[1]]())
