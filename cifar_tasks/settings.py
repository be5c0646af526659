"""Settings of a deployment, from environment variables with the prefix `CIFAR_`.

The addresses of S3 and MLflow are in the variables of their clients: `AWS_ENDPOINT_URL_S3`, `AWS_ACCESS_KEY_ID`,
`AWS_SECRET_ACCESS_KEY`, `MLFLOW_TRACKING_URI`.
"""

import os
from pathlib import Path
from typing import Annotated, Self
from zoneinfo import available_timezones

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from cifar_tasks.config import MAX_IMAGE_SIZE, MIN_IMAGE_SIZE, Profile, RegisteredModelName, Resize, StartFrom
from cifar_tasks.data.lines.line_settings import DatasetLine
from cifar_tasks.data.quality.quality_limits import QualityLimits
from cifar_tasks.data.source_names import LineName, RunSource, line_of
from cifar_tasks.errors import ConfigError, nearest, problems
from cifar_tasks.promotion.limits import Limits, TrainingMode

PROJECT = Path(__file__).resolve().parent.parent
MIN_TOKEN = 24
"""Characters of the token of the webhook."""


class WeightsFile(BaseModel):
    """Pretrained weights from another location than the publisher's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    """A file, or an `s3://` URL."""
    sha256: str = Field(pattern=r"^[0-9a-fA-F]{64}$")
    """Of the file; 64 hex digits."""


def _without_slash(url: str) -> str:
    """Paths are added to it."""
    return url.rstrip("/")


Url = Annotated[str, AfterValidator(_without_slash)]


def _of_user(path: Path) -> Path:
    """A shell leaves `~` in quotes as it is."""
    try:
        return path.expanduser()
    except RuntimeError:
        raise ValueError(f"the home of {path.parts[0]} is not known: give the whole path") from None


def _cron(expression: str) -> str:
    from croniter import CroniterError, croniter  # what Airflow uses

    try:
        croniter(expression).get_next()
    except CroniterError as error:
        raise ValueError(
            f"not a cron expression with a next date ({error}). Example, every Monday at 3:00: 0 3 * * 1"
        ) from None
    return expression


def _timezone(name: str) -> str:
    if name != "UTC" and name not in (names := available_timezones()):
        raise ValueError(f"not an IANA time zone{nearest(name, names)}. Example: Europe/Berlin")
    return name


class Settings(BaseSettings):
    """`Settings()` reads the environment each time."""

    # An error shows no value, because Airflow shows errors of DAG files to all, and some values are secret.
    model_config = SettingsConfigDict(
        env_prefix="CIFAR_", frozen=True, env_ignore_empty=True, hide_input_in_errors=True
    )

    home: Annotated[Path, AfterValidator(_of_user)] = PROJECT / ".cifar"
    """State, logs, secrets and downloads of the embedded stack."""
    bucket: str = Field(default="cifar", pattern=r"^[a-z0-9][a-z0-9.\-]{1,61}[a-z0-9]$")
    """S3 bucket of datasets and checkpoints."""
    experiment: str = "cifar10-training"
    """MLflow experiment of all runs."""
    registered_model: RegisteredModelName = "cifar10-classifier"
    """Name in the MLflow model registry."""
    airflow_url: Url | None = None
    """Address of Airflow in a browser, for links; none without Airflow."""
    airflow_api: Url | None = None
    """API of the Airflow in which `cifar demo` starts its run; none for the embedded stack, which it starts."""
    airflow_user: str = "admin"
    """Who logs in there. For notes of DAG runs it needs the permissions to read and edit DAGs and DAG runs."""
    airflow_password: SecretStr | None = None
    """Of this user."""
    mlflow_url: Url | None = None
    """Address of MLflow in a browser, for links, if it differs from `MLFLOW_TRACKING_URI`, which the tasks use."""

    source: RunSource = "auto"
    """Default of the form: `auto`, `cifar10`, `digits`, `line:NAME`, an absolute path or an `s3://` URL."""
    models: str = ""
    """Default of the form: names of models, separated by commas; empty for the models of a default run."""
    profile: Profile = "demo"
    """Default of the form: minutes on a CPU, or the whole training on a GPU."""
    image_size: int = Field(default=32, ge=MIN_IMAGE_SIZE, le=MAX_IMAGE_SIZE)
    """Default of the form: pixels per side that all images are resized to."""
    resize: Resize = "crop"
    """Default of the form: how images that are not square become so."""
    start_from: StartFrom = "recipe"
    """Default of the form: the weights that a training starts from, those of the recipe or the champion's."""
    schedule: Annotated[str, AfterValidator(_cron)] | None = None
    """Cron expression of the training DAG, which then runs with these defaults; none: only when triggered."""
    schedule_timezone: Annotated[str, AfterValidator(_timezone)] = "UTC"
    """Time zone of the schedule, as IANA names it."""
    studies_url: SecretStr | None = None
    """SQLAlchemy URL of the database of Optuna's studies; none if nothing is tuned."""
    trial_heartbeat: int = Field(default=10, ge=1)
    """Seconds between the heartbeats of a trial; its worker counts as lost after three times as many without one."""
    gpu_slots: int = Field(default=2, ge=1)
    """Trainings that may run at the same time: slots of Airflow's pool `gpu`."""
    quota_slots: int | None = Field(default=None, ge=1)
    """Trainings that share the CPU quota of one container; none: as many as `gpu_slots`."""
    training_processes: int = Field(default=1, ge=1)
    """Processes that train one model together, each on its own GPU if there are GPUs."""

    promotion: TrainingMode = "auto"
    """Default of the forms: whether the evidence decides alone (`auto`), a person agrees (`approve`), or nobody is
    promoted (`never`)."""
    promotion_limits: Limits = Limits()
    """Defaults of the form, as JSON: `{"min_gain": 0.01, "max_latency_ms": 20}`; what is not named stays."""
    approval_hours: float = Field(default=24, gt=0, le=8760)
    """That a promotion waits for a person; no answer is a no."""
    promotion_queue: str | None = None
    """Celery queue of the tasks that write the promotion log and move aliases, if its workers alone have the right to;
    none: each task may."""

    dataset_lines: dict[LineName, DatasetLine] = {}
    """Line → its source, as JSON: `{"products": {"source": "s3://bucket/prefix", "settle_seconds": 300}}`."""
    dataset_schedule: Annotated[str, AfterValidator(_cron)] | None = None
    """Cron expression of the DAG that checks the sources of all lines; none: only when triggered."""
    dataset_limits: QualityLimits = QualityLimits()
    """What a new version of a line must meet, as JSON: `{"max_label_errors": 0.05}`; what is not named stays."""
    webhook_token: SecretStr | None = None
    """Bearer token of the webhook by which object storage starts a check of a line; none: there is no webhook."""

    cifar10_url: str = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
    """URL of the official archive, or of a mirror."""
    pretrained_weights: dict[str, WeightsFile] = {}
    """Model → its pretrained weights, as JSON: `{"resnet50": {"source": "s3://bucket/key", "sha256": "…"}}`."""

    @model_validator(mode="after")
    def _long_token(self) -> Self:
        # Not of the field: its error would tell the token.
        if self.webhook_token and len(self.webhook_token) < MIN_TOKEN:
            raise ValueError(
                f"CIFAR_WEBHOOK_TOKEN has fewer than {MIN_TOKEN} characters. Make one: openssl rand -hex 32"
            )
        return self

    @model_validator(mode="after")
    def _line_of_the_source(self) -> Self:
        line = line_of(self.source)
        if line and line not in self.dataset_lines:
            lines = ", ".join(self.dataset_lines) or "none"
            raise ValueError(f"CIFAR_SOURCE: there is no dataset line {line!r} in CIFAR_DATASET_LINES ({lines})")
        return self


def machine_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0))


def cpu_cores() -> int:
    """Cores that this process may use: those of its affinity, within the CPU quota of its container."""
    from joblib import cpu_count

    return int(cpu_count())


def training_threads(settings: Settings, trainings: int | None = None) -> int:
    """Threads of one of as many trainings as run at a time, so that together they use each core once.

    `trainings` is how many the run has; none if it may be as many as there are slots.

    With more threads than cores each waits for the others: a CNN trained at 60 images/s with two threads beside one
    other busy process, and at 240 with one (2 CPU cores with AMX).
    """
    at_once = min(settings.gpu_slots, trainings or settings.gpu_slots)
    of_machine = machine_cores() // at_once
    of_container = cpu_cores() // min(settings.quota_slots or at_once, at_once)
    return max(1, min(of_machine, of_container))


def read_settings() -> Settings:
    """Settings for the command line: `ConfigError` names the variable whose value is not valid."""
    try:
        return Settings()
    except ValidationError as error:
        raise ConfigError("\n".join(problems(error, variable))) from None
    except SettingsError as error:  # what should be JSON is none
        field = str(error).partition('"')[2].partition('"')[0]
        given = {name.upper(): value for name, value in os.environ.items()}.get(variable(field))
        raise ConfigError(f"{variable(field)}: is no JSON, got {given!r}") from None


def variable(field: str) -> str:
    """The environment variable of a setting."""
    return f"CIFAR_{field.upper().removeprefix('CIFAR_')}"
