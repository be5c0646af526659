"""Does a service do its work? One function per service, for `cifar up`, the health checks of compose and the doctor.

Each asks a real question, returns the version of the service where it tells one, and raises `ProbeError` otherwise.
In a container: `python -m cifar_tasks.deployment.probes SERVICE`, with SERVICE as docker-compose.yaml names it.
"""

import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from hashlib import md5
from typing import Any
from urllib.parse import urlsplit

import requests

from cifar_tasks.errors import CifarError
from cifar_tasks.storage.hosts import without_login
from cifar_tasks.storage.s3 import s3_client

DATABASES = 8
PROBE_FOLDERS = tuple(f".probe-{number}" for number in range(64))
"""More than enough for one in each of the databases."""


class ProbeError(CifarError):
    """The service does not answer, or refuses. The message is the reason, without the service's name."""

    def __init__(self, reason: str, code: str | None = None) -> None:
        super().__init__(reason)
        self.code = code
        """Its own error code if it answers (`401`, `NoSuchBucket`, `AuthenticationError`), None if it does not."""


class RestartNeeded(ProbeError):
    """The service answers, but will work only after a restart."""


def postgres(url: str, timeout: float = 5) -> int:
    """Log in to the database of the URL; 170005 is version 17.5."""
    import psycopg2

    plain = re.sub(r"^(db\+)?postgres(ql)?(\+\w+)?:", "postgresql:", url)  # the drivers are SQLAlchemy's words
    try:
        connection = psycopg2.connect(plain, connect_timeout=max(2, int(timeout)))
    except psycopg2.OperationalError as error:
        # libpq: `connection to server at …, port 5432 failed: FATAL:  password authentication failed for user "celery"`
        reason = str(error).strip().splitlines()[0].rpartition("failed: ")[2]
        raise ProbeError(reason.removeprefix("FATAL:").strip(), "FATAL" if "FATAL:" in reason else None) from error
    connection.close()
    return int(connection.server_version)


def redis(url: str, timeout: float = 5) -> str:
    from redis import Redis
    from redis.exceptions import AuthenticationError, RedisError, ResponseError

    try:
        with Redis.from_url(url, socket_timeout=timeout, socket_connect_timeout=timeout) as client:
            return str(client.info("server")["redis_version"])
    except (AuthenticationError, ResponseError) as error:
        raise ProbeError(str(error), type(error).__name__) from error
    except (RedisError, OSError) as error:
        raise ProbeError("does not answer") from error


def s3(*buckets: str, environment: Mapping[str, str] | None = None, timeout: float = 5) -> str:
    """A signed request to each bucket, or for the list of buckets; what the server calls itself: `SeaweedFS 30GB 4.48`.

    Address and credentials are those of `environment`, by default of this process.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    client = s3_client(attempts=1, read_timeout=timeout, environment=environment)
    try:
        answers: list[Any] = [client.list_objects_v2(Bucket=bucket, MaxKeys=1) for bucket in buckets]
        answer = answers[-1] if answers else client.list_buckets()
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        raise ProbeError(f"refuses the request: {code}", code) from error
    except BotoCoreError as error:
        raise ProbeError(f"does not answer at {client.meta.endpoint_url}") from error
    return str(answer["ResponseMetadata"]["HTTPHeaders"].get("server", ""))


def seaweedfs_writes(bucket: str, environment: Mapping[str, str] | None = None, timeout: float = 5) -> None:
    """Write and delete an object in each database in which SeaweedFS keeps names; `RestartNeeded` if one refuses.

    After a full disk a database (LevelDB) refuses every write until SeaweedFS has started again. Its filer store
    leveldb2 takes the database from the MD5 of the folder (`weed/filer/leveldb2`, 4.48).
    """
    from botocore.exceptions import BotoCoreError, ClientError

    folders = {
        md5(f"/buckets/{bucket}/{name}".encode(), usedforsecurity=False).digest()[-1] % DATABASES: name
        for name in PROBE_FOLDERS
    }
    client = s3_client(attempts=1, read_timeout=timeout, environment=environment)
    try:
        for name in folders.values():
            client.put_object(Bucket=bucket, Key=f"{name}/empty", Body=b"")
            client.delete_object(Bucket=bucket, Key=f"{name}/empty")
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        kind = RestartNeeded if code == "InternalError" else ProbeError
        raise kind(f"does not write: {code}", code) from error
    except BotoCoreError as error:
        raise ProbeError(f"does not answer at {client.meta.endpoint_url}") from error


def mlflow(address: str, login: tuple[str, str] | None = None, timeout: float = 5) -> str:
    """A question that needs MLflow's database, and its version."""
    _get(f"{address}/api/2.0/mlflow/experiments/search?max_results=1", login, timeout)
    return _get(f"{address}/version", login, timeout).text.strip()


def airflow(address: str, timeout: float = 5) -> str:
    return str(_airflow(address, "version", timeout).get("version"))


def airflow_component(address: str, component: str, since: float = 0, timeout: float = 5) -> None:
    """The heartbeat of `scheduler`, `dag-processor` or `triggerer`, or the database of `api-server`.

    A heartbeat from before `since` (Unix time) does not count: it may be of a process that has ended.
    """
    if without := without_heartbeat(address, [component], since, timeout):
        raise ProbeError(f"{without[0]} has no heartbeat", "unhealthy")


def without_heartbeat(address: str, components: Iterable[str], since: float = 0, timeout: float = 5) -> list[str]:
    """Those of the components, as `airflow_component` names them, that are not well."""
    answer = _airflow(address, "monitor/health", timeout)

    def well(component: str) -> bool:
        name = "metadatabase" if component == "api-server" else component.replace("-", "_")
        health = answer.get(name) or {}
        heartbeat = health.get(f"latest_{name}_heartbeat")
        recent = not heartbeat or datetime.fromisoformat(heartbeat).timestamp() >= since
        return health.get("status") == "healthy" and recent

    return [component for component in components if not well(component)]


def _airflow(address: str, path: str, timeout: float) -> dict[str, Any]:
    try:
        return dict(_get(f"{address}/api/v2/{path}", None, timeout).json())
    except ValueError as error:
        raise ProbeError(f"is no Airflow at {address}") from error


def celery_worker(broker: str, name: str, timeout: float = 10) -> None:
    """A ping through Redis, which the worker of this name answers."""
    with _celery(broker) as app:
        if not app.control.ping(destination=[name], timeout=timeout):
            raise ProbeError(f"{name} does not answer")


def celery_workers(broker: str, timeout: float = 5) -> list[tuple[set[str], int]]:
    """The queues of each worker, and how many tasks it runs at a time.

    Waits the whole timeout: Celery does not know how many workers there are.
    """
    with _celery(broker) as app:
        consumed = app.control.inspect(timeout=timeout).active_queues() or {}
        stats = (app.control.inspect(list(consumed), timeout).stats() or {}) if consumed else {}
    return [
        ({queue["name"] for queue in consumed[worker]}, int(stats[worker]["pool"]["max-concurrency"]))
        for worker in stats
    ]


def _celery(broker: str) -> Any:
    from celery import Celery  # type: ignore[import-untyped]

    return Celery(broker=broker, set_as_current=False)


def flower(address: str, timeout: float = 5) -> None:
    _get(f"{address}/healthcheck", None, timeout)


def clock_difference(url: str, now: Callable[[], float], timeout: float = 5) -> float:
    """How many seconds `now`, the clock here, is ahead of the server's (negative: behind), as far as it can be told.

    The server tells whole seconds, at some moment between request and answer.
    """
    before, answer, after = now(), get(url, timeout=timeout), now()
    server = parsedate_to_datetime(answer.headers["date"]).timestamp()
    return max(before - server - 1, 0) + min(after - server, 0)


def get(url: str, login: tuple[str, str] | None = None, timeout: float = 5) -> requests.Response:
    """Whatever the server answers. Without a login the request is anonymous: it has not even one of ~/.netrc."""
    host = urlsplit(url).hostname
    try:
        with requests.Session() as session:
            session.trust_env = host not in ("127.0.0.1", "localhost")  # no proxy leads away from this machine
            return session.get(url, auth=login or (lambda request: request), timeout=timeout)
    except requests.RequestException as error:
        raise ProbeError(f"does not answer at {without_login(url).partition('?')[0].partition('/api/')[0]}") from error


def _get(url: str, login: tuple[str, str] | None, timeout: float) -> requests.Response:
    answer = get(url, login, timeout)
    if not answer.ok:
        raise ProbeError(f"answers {answer.status_code} {answer.reason}", str(answer.status_code))
    return answer


def main(service: str) -> None:
    """The probe of a service of docker-compose.yaml, run in its own container."""
    variables = os.environ
    if service == "storage":
        s3()
    elif service == "mlflow":
        # Under the service's name, so that MLflow's check of host names is asked as well.
        mlflow("http://mlflow:5000", ("admin", variables["MLFLOW_AUTH_ADMIN_PASSWORD"]))
    elif queue := {"worker": "default", "gpu-worker": "gpu", "promotion-worker": "promotion"}.get(service):
        celery_worker(variables["AIRFLOW__CELERY__BROKER_URL"], f"{queue}@{os.uname().nodename}")
    elif service == "flower":
        flower("http://localhost:5555")
    else:
        api = variables["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"].removesuffix("/execution/")
        airflow_component(api, service)


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except ProbeError as error:
        sys.exit(f"{sys.argv[1]}: {error}")
