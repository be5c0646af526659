"""What the embedded stack consists of: one row a service, with the request that proves that it works."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import requests

from cifar_tasks.deployment.stack import postgres
from cifar_tasks.deployment.stack.environment import HOST, MLFLOW_BUCKET, S3_INNER_PORTS, Ports
from cifar_tasks.settings import Settings

Probe = Callable[[Mapping[str, str], float], bool]
"""Given the stack's environment and the Unix time since when an answer counts: does the service do its work?"""

AIRFLOW = "airflow"
AIRFLOW_NEEDS = ("postgres", "airflow-migrate")


@dataclass(frozen=True)
class Service:
    name: str
    command: list[str]
    probe: Probe | None
    """None: a job that runs to its end, which is what the others wait for."""
    group: str
    """Stopped together; also what `without` names."""
    needs: tuple[str, ...] = ()
    ports: Mapping[str, range] = field(default_factory=dict)
    """The setting that moves them → the ports."""
    url: str | None = None
    stop_signal: str = "TERM"
    signal_group: bool = True
    """Whether the stop signal goes to all processes of the service or to the first one only."""
    user: str | None = None
    """Whom the service runs as, when that is somebody else."""


def services(home: Path, ports: Ports) -> list[Service]:
    """All of them, in the order in which they can be started."""
    return [
        Service(
            "postgres",
            postgres.command(home, ports),
            database_answers,
            group="postgres",
            ports=_port("CIFAR_POSTGRES_PORT", ports.postgres_port),
            stop_signal="INT",  # PostgreSQL's fast shutdown: sessions are ended, nothing is lost
            signal_group=False,
            user=postgres.server_user(),
        ),
        Service(
            "s3",
            _seaweed(home, ports),
            storage_answers,
            group="s3",
            ports=_port("CIFAR_S3_PORT", ports.s3_port) | {"CIFAR_S3_INNER_PORT": inner_ports(ports)},
            url=_url(ports.s3_port),
        ),
        Service(
            "mlflow",
            _python("mlflow", "server", "--host", HOST, "--port", str(ports.mlflow_port), "--workers", "1"),
            mlflow_answers,
            group="mlflow",
            needs=("postgres", "s3"),
            ports=_port("CIFAR_MLFLOW_PORT", ports.mlflow_port),
            url=_url(ports.mlflow_port),
        ),
        Service("airflow-migrate", _python("airflow", "db", "migrate"), None, group=AIRFLOW, needs=("postgres",)),
        Service(
            "airflow-api-server",
            _python("airflow", "api-server"),
            airflow_answers("metadatabase"),
            group=AIRFLOW,
            needs=AIRFLOW_NEEDS,
            ports=_port("CIFAR_AIRFLOW_PORT", ports.airflow_port),
            url=_url(ports.airflow_port),
        ),
        # The log servers that two of these would start listen on every interface.
        _airflow("scheduler", "--skip-serve-logs"),
        _airflow("dag-processor"),
        _airflow("triggerer", "--skip-serve-logs"),
    ]


def _airflow(component: str, *flags: str) -> Service:
    return Service(
        f"airflow-{component}",
        _python("airflow", component, *flags),
        airflow_answers(component.replace("-", "_")),
        group=AIRFLOW,
        needs=AIRFLOW_NEEDS,
    )


def _python(*words: str) -> list[str]:
    return [sys.executable, "-m", *words]


def _url(port: int) -> str:
    return f"http://{HOST}:{port}"


def _port(variable: str, port: int) -> dict[str, range]:
    return {variable: range(port, port + 1)}


def inner_ports(ports: Ports) -> range:
    return range(ports.s3_inner_port, ports.s3_inner_port + S3_INNER_PORTS)


def _seaweed(home: Path, ports: Ports) -> list[str]:
    inner = iter(inner_ports(ports))
    options = {
        "dir": home / "s3",
        "ip": HOST,
        "ip.bind": HOST,
        "bucket": ",".join(_buckets()),
        "s3.port": ports.s3_port,
        "s3.port.grpc": next(inner),
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "s3.localSocket": home / "s3" / "s3.sock",
        "filer.port": next(inner),
        "filer.port.grpc": next(inner),
        "filer.localSocket": home / "s3" / "filer.sock",
        "master.port": next(inner),
        "master.port.grpc": next(inner),
        "master.telemetry": "false",
        "volume.port": next(inner),
        "volume.port.grpc": next(inner),
        "admin.port": next(inner),
        "admin.port.grpc": next(inner),
        "admin.ui": "false",
        "webdav": "false",
    }
    weed = Path(sys.executable).with_name("weed")
    return [str(weed), "-logtostderr=true", "mini", *(f"-{name}={value}" for name, value in options.items())]


def _buckets() -> tuple[str, str]:
    return Settings().bucket, MLFLOW_BUCKET


def database_answers(environment: Mapping[str, str], _since: float) -> bool:
    import psycopg2

    try:
        url = environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].replace("+psycopg2", "")
        with psycopg2.connect(url, connect_timeout=2) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        connection.close()
    except psycopg2.OperationalError:
        return False
    return True


def storage_answers(environment: Mapping[str, str], _since: float) -> bool:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    client = boto3.client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT_URL_S3"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        region_name=environment["AWS_DEFAULT_REGION"],
        config=Config(connect_timeout=2, read_timeout=2, retries={"total_max_attempts": 1}, proxies={}),
    )
    try:
        for bucket in _buckets():
            client.head_bucket(Bucket=bucket)
    except (BotoCoreError, ClientError):
        return False
    return True


def mlflow_answers(environment: Mapping[str, str], _since: float) -> bool:
    url = f"{environment['MLFLOW_TRACKING_URI']}/api/2.0/mlflow/experiments/search"
    try:
        with direct_session() as session:
            return bool(session.post(url, json={"max_results": 1}, timeout=2).ok)
    except requests.RequestException:
        return False


def airflow_answers(component: str) -> Probe:
    """A probe of one of Airflow's components, by way of the API server; a heartbeat must be newer than `since`."""

    def probe(environment: Mapping[str, str], since: float) -> bool:
        try:
            with direct_session() as session:
                response = session.get(f"{environment['CIFAR_AIRFLOW_URL']}/api/v2/monitor/health", timeout=5)
            response.raise_for_status()
            health: dict[str, Any] = response.json()[component]
        except (requests.RequestException, ValueError):
            return False
        heartbeat = health.get(f"latest_{component}_heartbeat")
        fresh = heartbeat is None or datetime.fromisoformat(heartbeat).timestamp() >= since
        return fresh and health["status"] == "healthy"

    return probe


def ensure_pool(environment: Mapping[str, str], user: str, password: str, name: str, slots: int) -> None:
    """Create Airflow's pool `name`, or give it as many slots as the settings say."""
    url = environment["CIFAR_AIRFLOW_URL"]
    pool: dict[str, str | int] = {
        "name": name,
        "slots": slots,
        "description": "Trainings that may run at the same time.",
    }
    with direct_session() as session:
        login = session.post(f"{url}/auth/token", json={"username": user, "password": password}, timeout=30)
        login.raise_for_status()
        session.headers["Authorization"] = f"Bearer {login.json()['access_token']}"
        answer = session.get(f"{url}/api/v2/pools/{name}", timeout=30)
        if answer.status_code == requests.codes.not_found:
            answer = session.post(f"{url}/api/v2/pools", json=pool, timeout=30)
        elif answer.ok and answer.json()["slots"] != slots:
            answer = session.patch(f"{url}/api/v2/pools/{name}", json=pool, timeout=30)
        answer.raise_for_status()


def direct_session() -> requests.Session:
    """A session that no proxy variable of the user's can lead away from 127.0.0.1."""
    session = requests.Session()
    session.trust_env = False
    return session
