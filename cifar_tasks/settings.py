"""What a deployment sets, read from the environment (prefix `CIFAR_`). Where the services are is said by the variables
their own clients read: `AWS_ENDPOINT_URL_S3`, `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `MLFLOW_TRACKING_URI`."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from cifar_tasks.config import Profile
from cifar_tasks.errors import ConfigError

PROJECT = Path(__file__).resolve().parent.parent


class WeightsFile(BaseModel):
    """Pretrained weights from another place than the publisher's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    """A file, or an `s3://` URL."""
    sha256: str
    """Of the file; 64 hex digits."""


class Settings(BaseSettings):
    """One object a process; `Settings()` reads the environment anew."""

    model_config = SettingsConfigDict(env_prefix="CIFAR_", frozen=True, env_ignore_empty=True)

    home: Path = PROJECT / ".cifar"
    """State, logs, secrets and downloads of the embedded stack."""
    bucket: str = "cifar"
    """S3 bucket of data sets and checkpoints."""
    experiment: str = "cifar10-training"
    """MLflow experiment of all runs."""
    registered_model: str = "cifar10-classifier"
    """Name in the MLflow registry under which versions are registered and the champion is kept."""
    airflow_url: str | None = None
    """Where a person opens Airflow, for links; none when there is no Airflow."""
    airflow_api: str | None = None
    """Where `cifar demo` reaches the Airflow of a deployment; none: that of the embedded stack, which it starts."""
    airflow_password: SecretStr | None = None
    """Of the user `admin` there."""
    mlflow_url: str | None = None
    """Where a person opens MLflow, for links, if that is not `MLFLOW_TRACKING_URI`, which the tasks use."""

    source: str = "auto"
    """Default of the form: `auto`, `cifar10`, `digits`, a path or an `s3://` URL."""
    models: str = ""
    """Default of the form: names of models with commas between; none for those of a default run."""
    profile: Profile = "demo"
    """Default of the form: minutes on a CPU, or the whole training on a GPU."""
    image_size: int = Field(default=32, ge=16, le=512)
    """Default of the form: pixels per side that all images are resized to."""
    resize: Literal["crop", "squash", "pad"] = "crop"
    """Default of the form: how images that are not square become so."""
    schedule: str | None = None
    """Cron expression on which the training DAG runs with these defaults; none: only when triggered."""
    studies_url: SecretStr | None = None
    """Database of Optuna's studies, as SQLAlchemy spells it; none where no search is wanted."""
    gpu_slots: int = Field(default=2, ge=1)
    """Trainings that may run at the same time: slots of Airflow's `gpu` pool."""
    training_processes: int = Field(default=1, ge=1)
    """Processes that train one model together, each on a GPU of its own where there are GPUs."""

    cifar10_url: str = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
    """Where the official archive is downloaded from; a mirror serves the same bytes."""
    pretrained_weights: dict[str, WeightsFile] = {}
    """Model → its pretrained weights, as JSON: `{"resnet50": {"source": "s3://bucket/key", "sha256": "…"}}`."""


def read_settings() -> Settings:
    """Settings for a person: `ConfigError` names the variable whose value is not usable."""
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = "_".join(str(part) for part in first["loc"]).upper()
        raise ConfigError(f"CIFAR_{name.removeprefix('CIFAR_')}: {first['msg']}, got {first['input']!r}") from None
