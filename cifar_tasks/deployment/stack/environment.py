"""Options, secrets and all variables of the embedded stack, kept in `home` and readable by its owner only."""

import base64
import json
import os
import secrets
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from cifar_tasks.errors import ConfigError, StackError, problems
from cifar_tasks.settings import PROJECT, variable
from cifar_tasks.storage.hosts import without_login

HOST = "127.0.0.1"
MLFLOW_BUCKET = "mlflow"
AIRFLOW_USER = "admin"
EXECUTOR = "cifar_tasks.deployment.stack.executor.LocalExecutor"
S3_INNER_PORTS = 9

_SERVICE_PREFIXES = (
    *("AIRFLOW_", "AWS_", "MLFLOW_", "PG", "S3_", "SUPERVISOR_", "WEED_"),
    *("FLASK_", "GUNICORN_", "OTEL_", "UVICORN_"),  # may open a service to others, or send its traces away
)
"""Variables that the services and their clients read. Those of the user name other servers."""


_OF_SERVERS = ("GOMEMLIMIT", "WEED_")
"""Variables that no client reads."""
ADDRESSES = ("MLFLOW_TRACKING_URI", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AIRFLOW_HOME")
"""Of these a user is told that they have no effect."""
_RANDOM = ("airflow_password", "airflow_jwt", "airflow_session", "postgres_password", "s3_secret_key", "s3_inner_key")
_SECRETS = (*_RANDOM, "airflow_fernet")


class StackOptions(BaseSettings):
    """What a running stack cannot change; each can be set as `CIFAR_<NAME>`. All ports are on 127.0.0.1."""

    model_config = SettingsConfigDict(env_prefix="CIFAR_", frozen=True, env_ignore_empty=True, extra="ignore")

    airflow_port: int = Field(default=8080, ge=1, le=65535)
    mlflow_port: int = Field(default=5000, ge=1, le=65535)
    s3_port: int = Field(default=8333, ge=1, le=65535)
    s3_inner_port: int = Field(default=18333, ge=1, le=65535 - S3_INNER_PORTS)
    """First of nine consecutive ports on which the parts of SeaweedFS talk to each other."""
    postgres_port: int = Field(default=5433, ge=1, le=65535)
    gpu_slots: int = Field(default=2, ge=1)
    """See `Settings.gpu_slots`."""


def read_options(home: Path) -> StackOptions:
    """What the environment sets, else what this stack was last started with, else the defaults."""
    try:
        wanted = StackOptions()
    except ValidationError as error:
        raise ConfigError("\n".join(problems(error, variable))) from None
    return started_with(home).model_copy(update=wanted.model_dump(include=wanted.model_fields_set))


def record_options(home: Path, options: StackOptions) -> None:
    write_private(home / "options.json", json.dumps(options.model_dump(), indent=2) + "\n")


def started_with(home: Path) -> StackOptions:
    """The options of the last start, whatever the environment sets now."""
    # All fields are given: `StackOptions` would take a missing one from the environment.
    path, defaults = home / "options.json", {name: each.default for name, each in StackOptions.model_fields.items()}
    try:
        return StackOptions(**{**defaults, **_read(path)})
    except ValidationError as error:
        raise StackError(f"{path}: {'; '.join(problems(error))}. Restore it from a backup, or delete it.") from None


def create_secrets(home: Path) -> None:
    """Generate what is missing; what is there stays, because data and services need it."""
    known = _read(home / "secrets.json")
    generated = {name: secrets.token_urlsafe(48) for name in _RANDOM}  # 64 characters, as HS512 needs
    generated["airflow_fernet"] = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
    if generated.keys() - known.keys():
        write_private(home / "secrets.json", json.dumps({**generated, **known}, indent=2) + "\n")
    write_private(password_file(home), json.dumps({AIRFLOW_USER: read_secrets(home)["airflow_password"]}) + "\n")


def read_secrets(home: Path) -> dict[str, str]:
    if not exists(home):
        raise StackError(f"There is no embedded stack in {home}. Start one: `cifar up`")
    path = home / "secrets.json"
    known = _read(path)
    if lacking := [name for name in _SECRETS if name not in known]:
        # The data can be read with these only.
        anew = "" if {"postgres_password", "airflow_fernet"} & {*lacking} else " Without one run `cifar up`."
        raise StackError(f"{path} lacks {', '.join(lacking)}. Restore it from a backup.{anew}")
    return known


def _read(path: Path) -> dict[str, Any]:
    """One of the two JSON files; nothing before the first start."""
    try:
        with usable(path):
            return dict(json.loads(path.read_text())) if path.exists() else {}
    except (ValueError, TypeError) as error:
        raise StackError(f"{path} is not JSON any more ({error}). Restore it from a backup.") from None


def password_file(home: Path) -> Path:
    """The login of the Airflow UI, in the form that Airflow's simple auth manager reads."""
    return home / "airflow" / "passwords.json"


def airflow_password(home: Path) -> str:
    """Of `AIRFLOW_USER`."""
    return read_secrets(home)["airflow_password"]


def exists(home: Path) -> bool:
    path = home / "secrets.json"
    with usable(path):
        return path.exists()


@contextmanager
def usable(path: Path) -> Iterator[None]:
    """`StackError` in place of `OSError`: it may be another user's, or no path at all."""
    try:
        yield
    except OSError as error:
        raise StackError(
            f"{path} cannot be read: {error.strerror}. Run as its owner, or set CIFAR_HOME to a folder of yours."
        ) from None


def use(home: Path) -> list[str]:
    """Make this process a client of the stack in `home`, if there is one: it wins over the servers that the environment
    names. Returns these as `NAME=VALUE`."""
    if not exists(home):
        return []
    wanted = overlay(os.environ, environment(home))
    replaced = other_addresses(os.environ, wanted)
    for name in os.environ.keys() - wanted.keys():
        del os.environ[name]
    os.environ.update(wanted)
    return replaced


def other_addresses(variables: Mapping[str, str], stack: Mapping[str, str]) -> list[str]:
    """`NAME=VALUE` of each server in `variables` that is not the stack's, without log-in."""
    others = {name: variables.get(name, "") for name in ADDRESSES}
    return [f"{name}={without_login(value)}" for name, value in others.items() if value and value != stack.get(name)]


def overlay(base: Mapping[str, str], stack: Mapping[str, str]) -> dict[str, str]:
    """`base` without the variables of other servers, and with those of the stack."""
    merged = {name: value for name, value in base.items() if not name.startswith(_SERVICE_PREFIXES)} | dict(stack)
    for name in ("NO_PROXY", "no_proxy"):
        merged[name] = ",".join(filter(None, [base.get(name), HOST]))
    return merged


def environment(home: Path) -> dict[str, str]:
    """Every variable that the services of the stack and their clients read. Holds secrets: never print it."""
    home = home.resolve()
    secret, options = read_secrets(home), started_with(home)
    return {
        "CIFAR_HOME": str(home),
        "CIFAR_GPU_SLOTS": str(options.gpu_slots),
        "CIFAR_AIRFLOW_URL": f"http://{HOST}:{options.airflow_port}",
        "AWS_ENDPOINT_URL_S3": f"http://{HOST}:{options.s3_port}",
        "AWS_ACCESS_KEY_ID": "cifar",
        "AWS_SECRET_ACCESS_KEY": secret["s3_secret_key"],
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        # The user's own files may send requests to AWS (`ignore_configured_endpoint_urls`).
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        # Without these SeaweedFS's inner HTTP servers give anonymous access, also to web pages of any origin.
        "WEED_JWT_SIGNING_KEY": secret["s3_inner_key"],
        "WEED_JWT_SIGNING_READ_KEY": secret["s3_inner_key"],
        "WEED_JWT_FILER_SIGNING_KEY": secret["s3_inner_key"],
        "WEED_JWT_FILER_SIGNING_READ_KEY": secret["s3_inner_key"],
        # After storing large objects SeaweedFS kept 700 MB for minutes; its Go runtime now collects sooner.
        "GOMEMLIMIT": "512MiB",
        "MLFLOW_TRACKING_URI": f"http://{HOST}:{options.mlflow_port}",
        "MLFLOW_BACKEND_STORE_URI": database_url(home, "mlflow"),
        "MLFLOW_ARTIFACTS_DESTINATION": f"s3://{MLFLOW_BUCKET}/artifacts",
        "CIFAR_STUDIES_URL": database_url(home, "optuna"),
        "MLFLOW_SERVER_ALLOWED_HOSTS": f"{HOST}:{options.mlflow_port},localhost:{options.mlflow_port}",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        **_airflow(home, options, secret),
    }


def shell_commands(home: Path, variables: Mapping[str, str]) -> list[str]:
    """What a POSIX shell with these variables runs to become a client of the stack. Holds secrets."""
    wanted = overlay(variables, environment(home))
    others = [f"unset {name}" for name in sorted(variables.keys() - wanted.keys()) if name.isidentifier()]
    own = [name for name in sorted({*environment(home), "NO_PROXY", "no_proxy"}) if not name.startswith(_OF_SERVERS)]
    return [*others, *(f"export {name}={shlex.quote(wanted[name])}" for name in own)]


def database_url(home: Path, database: str) -> str:
    password, port = read_secrets(home)["postgres_password"], started_with(home).postgres_port
    return f"postgresql+psycopg2://cifar:{password}@{HOST}:{port}/{database}"


def _airflow(home: Path, options: StackOptions, secret: Mapping[str, str]) -> dict[str, str]:
    url = f"http://{HOST}:{options.airflow_port}"
    logs = home / "logs" / "airflow"
    config: dict[str, dict[str, object]] = {
        "CORE": {
            "DAGS_FOLDER": PROJECT / "dags",
            "PLUGINS_FOLDER": PROJECT / "plugins",
            "LOAD_EXAMPLES": False,
            "DAGS_ARE_PAUSED_AT_CREATION": False,
            "EXECUTOR": EXECUTOR,
            "PARALLELISM": options.gpu_slots + 1,  # each idle worker keeps 145 MB
            "FERNET_KEY": secret["airflow_fernet"],
            "SIMPLE_AUTH_MANAGER_USERS": f"{AIRFLOW_USER}:admin",
            "SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": password_file(home),
            "EXECUTION_API_SERVER_URL": f"{url}/execution/",
        },
        "DATABASE": {"SQL_ALCHEMY_CONN": database_url(home, "airflow")},
        "API": {
            "BASE_URL": url,
            "HOST": HOST,
            "PORT": options.airflow_port,
            "WORKERS": 1,
            "SECRET_KEY": secret["airflow_session"],
        },
        "API_AUTH": {"JWT_SECRET": secret["airflow_jwt"]},
        "LOGGING": {
            "BASE_LOG_FOLDER": logs,
            "DAG_PROCESSOR_CHILD_PROCESS_LOG_DIRECTORY": logs / "dag_processor",
            # No log server runs, because it listens on every interface: logs are read from the shared folder. The
            # traceback of each attempt to reach one would fill the API server's log.
            "NAMESPACE_LEVELS": "airflow.utils.log.file_task_handler=CRITICAL",
        },
        # A changed DAG file is seen within seconds; an unchanged one is parsed every half minute.
        "DAG_PROCESSOR": {
            "DAG_BUNDLE_STORAGE_PATH": home / "airflow" / "bundles",
            "PARSING_PROCESSES": 1,
            "REFRESH_INTERVAL": 5,
            "BUNDLE_REFRESH_CHECK_INTERVAL": 2,
        },
        # A task learns from its heartbeat that it was stopped in the UI. It survives minutes without API server, and
        # starts while that restarts: each request is tried for 35 to 140 s.
        "WORKERS": {
            "MIN_HEARTBEAT_INTERVAL": 2,
            "MAX_FAILED_HEARTBEATS": 4,
            "EXECUTION_API_RETRIES": 8,
            "EXECUTION_API_RETRY_WAIT_MIN": 5,
        },
        # A task starts when the scheduler looks, half of this time after the one before it on average.
        "SCHEDULER": {"TASK_INSTANCE_HEARTBEAT_TIMEOUT": 120, "SCHEDULER_IDLE_SLEEP_TIME": 0.4},
    }
    return {"AIRFLOW_HOME": str(home / "airflow")} | {
        f"AIRFLOW__{section}__{name}": str(value) for section, names in config.items() for name, value in names.items()
    }


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, atomically, and only when it changes."""
    if path.exists() and path.read_text() == text:
        path.chmod(0o600)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    draft.replace(path)
