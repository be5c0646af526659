"""Ports, secrets and every variable of the embedded stack. Everything is kept in `home`, readable by its owner only."""

import base64
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from cifar_tasks.errors import ConfigError, StackError
from cifar_tasks.settings import PROJECT, Settings

HOST = "127.0.0.1"
MLFLOW_BUCKET = "mlflow"
AIRFLOW_USER = "admin"
S3_INNER_PORTS = 9

_SERVICE_PREFIXES = ("AIRFLOW_", "AWS_", "MLFLOW_", "PG", "S3_", "SUPERVISOR_", "WEED_")
"""Variables that the services or their clients obey. The user's own ones mean other servers and must not leak in."""


class Ports(BaseSettings):
    """Where the services listen, all on 127.0.0.1; each can be set as `CIFAR_<NAME>`."""

    model_config = SettingsConfigDict(env_prefix="CIFAR_", frozen=True, env_ignore_empty=True, extra="ignore")

    airflow_port: int = Field(default=8080, ge=1, le=65535)
    mlflow_port: int = Field(default=5000, ge=1, le=65535)
    s3_port: int = Field(default=8333, ge=1, le=65535)
    s3_inner_port: int = Field(default=18333, ge=1, le=65535 - S3_INNER_PORTS)
    """First of nine consecutive ports on which the parts of SeaweedFS talk to each other."""
    postgres_port: int = Field(default=5433, ge=1, le=65535)


def read_ports(home: Path) -> Ports:
    """What the environment sets, else what this stack was last started with, else the defaults."""
    try:
        chosen = Ports()
        return Ports(**{**_remembered_ports(home), **chosen.model_dump(include=chosen.model_fields_set)})
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"CIFAR_{str(first['loc'][0]).upper()}: {first['msg']}, got {first['input']!r}.") from None


def remember_ports(home: Path, ports: Ports) -> None:
    write_private(home / "ports.json", json.dumps(ports.model_dump(), indent=2) + "\n")


def started_with(home: Path) -> Ports:
    """The ports of the last start, whatever the environment says now."""
    return Ports(**_remembered_ports(home))


def _remembered_ports(home: Path) -> dict[str, int]:
    return _read(home / "ports.json")


def create_secrets(home: Path) -> None:
    """Generate what is missing; what is there stays, or the old data could no longer be opened."""
    known = _read(home / "secrets.json")
    names = ("airflow_password", "airflow_jwt", "airflow_session", "postgres_password", "s3_secret_key", "s3_inner_key")
    generated = {name: secrets.token_urlsafe(48) for name in names}  # 64 characters: HS512 wants as many
    generated["airflow_fernet"] = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
    if generated.keys() - known.keys():
        write_private(home / "secrets.json", json.dumps({**generated, **known}, indent=2) + "\n")
    write_private(password_file(home), json.dumps({AIRFLOW_USER: read_secrets(home)["airflow_password"]}) + "\n")


def read_secrets(home: Path) -> dict[str, str]:
    if not exists(home):
        raise StackError(f"There is no embedded stack in {home}. Start one: `cifar up`")
    return _read(home / "secrets.json")


def _read(path: Path) -> dict[str, Any]:
    """What one of the two JSON files holds; nothing before the first start."""
    try:
        return dict(json.loads(path.read_text()))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise StackError(f"{path} is no JSON any more ({error}). Restore it from a backup.") from None


def password_file(home: Path) -> Path:
    """The login of the Airflow UI, in the form that Airflow's simple auth manager reads."""
    return home / "airflow" / "passwords.json"


def exists(home: Path) -> bool:
    return (home / "secrets.json").exists()


def use(home: Path) -> None:
    """Make this process a client of the stack in `home`, unless its environment already says where MLflow is."""
    if "MLFLOW_TRACKING_URI" in os.environ or not exists(home):
        return
    wanted = overlay(os.environ, environment(home))
    for name in os.environ.keys() - wanted.keys():
        del os.environ[name]
    os.environ.update(wanted)


def overlay(base: Mapping[str, str], stack: Mapping[str, str]) -> dict[str, str]:
    """`base` without the variables of other servers, and with those of the stack."""
    merged = {name: value for name, value in base.items() if not name.startswith(_SERVICE_PREFIXES)} | dict(stack)
    for name in ("NO_PROXY", "no_proxy"):
        merged[name] = ",".join(filter(None, [base.get(name), HOST]))
    return merged


def environment(home: Path) -> dict[str, str]:
    """Every variable that the services of the stack and their clients read. Holds secrets: never print it."""
    home = home.resolve()
    secret, ports, settings = read_secrets(home), started_with(home), Settings()
    return {
        "CIFAR_HOME": str(home),
        "CIFAR_AIRFLOW_URL": f"http://{HOST}:{ports.airflow_port}",
        "AWS_ENDPOINT_URL_S3": f"http://{HOST}:{ports.s3_port}",
        "AWS_ACCESS_KEY_ID": "cifar",
        "AWS_SECRET_ACCESS_KEY": secret["s3_secret_key"],
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        # SeaweedFS's inner HTTP servers answer anyone without these, and let web pages of any origin read.
        "WEED_JWT_SIGNING_KEY": secret["s3_inner_key"],
        "WEED_JWT_SIGNING_READ_KEY": secret["s3_inner_key"],
        "WEED_JWT_FILER_SIGNING_KEY": secret["s3_inner_key"],
        "WEED_JWT_FILER_SIGNING_READ_KEY": secret["s3_inner_key"],
        # After storing large objects SeaweedFS kept 700 MB for minutes; its Go runtime now collects sooner.
        "GOMEMLIMIT": "512MiB",
        "MLFLOW_TRACKING_URI": f"http://{HOST}:{ports.mlflow_port}",
        "MLFLOW_BACKEND_STORE_URI": database_url(home, "mlflow"),
        "MLFLOW_ARTIFACTS_DESTINATION": f"s3://{MLFLOW_BUCKET}/artifacts",
        "CIFAR_STUDIES_URL": database_url(home, "optuna"),
        "MLFLOW_SERVER_ALLOWED_HOSTS": f"{HOST}:{ports.mlflow_port},localhost:{ports.mlflow_port}",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        **_airflow(home, ports, secret, settings),
    }


def database_url(home: Path, database: str) -> str:
    password, port = read_secrets(home)["postgres_password"], started_with(home).postgres_port
    return f"postgresql+psycopg2://cifar:{password}@{HOST}:{port}/{database}"


def _airflow(home: Path, ports: Ports, secret: Mapping[str, str], settings: Settings) -> dict[str, str]:
    url = f"http://{HOST}:{ports.airflow_port}"
    logs = home / "logs" / "airflow"
    options: dict[str, dict[str, object]] = {
        "CORE": {
            "DAGS_FOLDER": PROJECT / "dags",
            "PLUGINS_FOLDER": PROJECT / "plugins",
            "LOAD_EXAMPLES": False,
            "DAGS_ARE_PAUSED_AT_CREATION": False,
            "EXECUTOR": "LocalExecutor",
            "PARALLELISM": settings.gpu_slots + 1,  # each idle worker keeps 145 MB
            "FERNET_KEY": secret["airflow_fernet"],
            "SIMPLE_AUTH_MANAGER_USERS": f"{AIRFLOW_USER}:admin",
            "SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": password_file(home),
            "EXECUTION_API_SERVER_URL": f"{url}/execution/",
        },
        "DATABASE": {"SQL_ALCHEMY_CONN": database_url(home, "airflow")},
        "API": {
            "BASE_URL": url,
            "HOST": HOST,
            "PORT": ports.airflow_port,
            "WORKERS": 1,
            "SECRET_KEY": secret["airflow_session"],
        },
        "API_AUTH": {"JWT_SECRET": secret["airflow_jwt"]},
        "LOGGING": {
            "BASE_LOG_FOLDER": logs,
            "DAG_PROCESSOR_CHILD_PROCESS_LOG_DIRECTORY": logs / "dag_processor",
            # No log server runs (it listens on every interface): logs are read from the shared folder, and the
            # traceback of the attempt to reach one would fill the API server's log while somebody watches a task.
            "NAMESPACE_LEVELS": "airflow.utils.log.file_task_handler=CRITICAL",
        },
        # A new or changed DAG file is seen within seconds; an unchanged one costs a parse every half minute.
        "DAG_PROCESSOR": {
            "DAG_BUNDLE_STORAGE_PATH": home / "airflow" / "bundles",
            "PARSING_PROCESSES": 1,
            "REFRESH_INTERVAL": 5,
            "BUNDLE_REFRESH_CHECK_INTERVAL": 2,
        },
        # A task learns from its heartbeat that it was stopped in the UI, and outlives a minute without API server.
        "WORKERS": {"MIN_HEARTBEAT_INTERVAL": 2, "MAX_FAILED_HEARTBEATS": 30},
        "SCHEDULER": {"TASK_INSTANCE_HEARTBEAT_TIMEOUT": 120},
    }
    return {"AIRFLOW_HOME": str(home / "airflow")} | {
        f"AIRFLOW__{section}__{name}": str(value) for section, names in options.items() for name, value in names.items()
    }


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, never half of it, and only when it changes."""
    if path.exists() and path.read_text() == text:
        path.chmod(0o600)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    draft.replace(path)
