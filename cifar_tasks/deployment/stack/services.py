"""The services of the embedded stack: one row per service, with the probe that tells whether it works."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cifar_tasks.deployment import SEAWEED_VOLUMES, probes
from cifar_tasks.deployment.stack import postgres
from cifar_tasks.deployment.stack.environment import HOST, MLFLOW_BUCKET, S3_INNER_PORTS, StackOptions
from cifar_tasks.settings import Settings

Probe = Callable[[Mapping[str, str], float], object]
"""Raises `ProbeError`; takes the stack's environment, and the Unix time before which no heartbeat counts."""

AIRFLOW = "airflow"
AIRFLOW_NEEDS = ("postgres", "airflow-setup")
API_SERVER = {"MALLOC_ARENA_MAX": "2"}
"""glibc gives each of its many threads memory of its own, and they answer in turn: 31 MB less with the page Models."""


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
    """The user that the service runs as, None for the current one."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Beside what all services have; nothing secret."""


def services(home: Path, options: StackOptions) -> list[Service]:
    """All of them, in the order in which they can be started."""
    return [
        Service(
            "postgres",
            postgres.command(home, options.postgres_port),
            lambda environment, _: probes.postgres(environment["MLFLOW_BACKEND_STORE_URI"], timeout=2),
            group="postgres",
            ports=_port("CIFAR_POSTGRES_PORT", options.postgres_port),
            stop_signal="INT",  # PostgreSQL's fast shutdown: sessions are ended, nothing is lost
            signal_group=False,
            user=postgres.server_user(),
        ),
        Service(
            "s3",
            _seaweed(home, options),
            lambda environment, _: _storage_works(environment),
            group="s3",
            ports=_port("CIFAR_S3_PORT", options.s3_port) | {"CIFAR_S3_INNER_PORT": inner_ports(options)},
            url=_url(options.s3_port),
        ),
        Service(
            "mlflow",
            _python("mlflow", "server", "--host", HOST, "--port", str(options.mlflow_port), "--workers", "1"),
            lambda environment, _: probes.mlflow(environment["MLFLOW_TRACKING_URI"], timeout=2),
            group="mlflow",
            needs=("postgres", "s3"),
            ports=_port("CIFAR_MLFLOW_PORT", options.mlflow_port),
            url=_url(options.mlflow_port),
        ),
        Service(
            "airflow-setup", _python("cifar_tasks.deployment.airflow_setup"), None, group=AIRFLOW, needs=("postgres",)
        ),
        _airflow(
            "api-server",
            ports=_port("CIFAR_AIRFLOW_PORT", options.airflow_port),
            url=_url(options.airflow_port),
            environment=API_SERVER,
        ),
        # The log servers that two of these would start listen on every interface.
        _airflow("scheduler", "--skip-serve-logs"),
        _airflow("dag-processor"),
        _airflow("triggerer", "--skip-serve-logs"),
    ]


def _storage_works(environment: Mapping[str, str]) -> None:
    buckets = _buckets()
    probes.s3(*buckets, environment=environment, timeout=2)
    probes.seaweedfs_writes(buckets[0], environment, timeout=2)


def _airflow(
    component: str,
    *flags: str,
    ports: Mapping[str, range] | None = None,
    url: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> Service:
    return Service(
        f"airflow-{component}",
        _python("airflow", component, *flags),
        lambda environment, since: probes.airflow_component(environment["CIFAR_AIRFLOW_URL"], component, since),
        group=AIRFLOW,
        needs=AIRFLOW_NEEDS,
        ports=ports or {},
        url=url,
        environment=environment or {},
    )


def _python(*words: str) -> list[str]:
    return [sys.executable, "-m", *words]


def _url(port: int) -> str:
    return f"http://{HOST}:{port}"


def _port(variable: str, port: int) -> dict[str, range]:
    return {variable: range(port, port + 1)}


def inner_ports(options: StackOptions) -> range:
    return range(options.s3_inner_port, options.s3_inner_port + S3_INNER_PORTS)


def _seaweed(home: Path, options: StackOptions) -> list[str]:
    inner = iter(inner_ports(options))
    flags = {
        "dir": home / "s3",
        "ip": HOST,
        "ip.bind": HOST,
        "bucket": ",".join(_buckets()),
        "s3.port": options.s3_port,
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
        "volume.max": SEAWEED_VOLUMES,
        "volume.port": next(inner),
        "volume.port.grpc": next(inner),
        "admin.port": next(inner),
        "admin.port.grpc": next(inner),
        "admin.ui": "false",
        "webdav": "false",
    }
    return weed(flags)


def weed(flags: Mapping[str, object]) -> list[str]:
    """The command of a SeaweedFS in one process."""
    program = Path(sys.executable).with_name("weed")
    return [str(program), "-logtostderr=true", "mini", *(f"-{name}={value}" for name, value in flags.items())]


def _buckets() -> tuple[str, str]:
    return Settings().bucket, MLFLOW_BUCKET
