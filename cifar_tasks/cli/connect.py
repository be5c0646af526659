"""The servers that a command uses: those of the embedded stack if there is one, else those of the environment."""

import os

from rich.console import Console
from rich.markup import escape

from cifar_tasks.errors import ConfigError, StackError
from cifar_tasks.models import parse_models
from cifar_tasks.settings import Settings, cpu_cores, machine_cores, read_settings


def checked_settings() -> Settings:
    """The settings, and `ConfigError` also for a model that does not exist: Airflow could not import the DAG."""
    settings = read_settings()
    if settings.models:
        try:
            parse_models(settings.models)
        except ConfigError as error:
            raise ConfigError(f"CIFAR_MODELS: {error}") from None
    return settings


def connect(errors: Console) -> Settings:
    """Make this process a client of the deployment; say on `errors` which addresses of the environment are not used."""
    from cifar_tasks.deployment import stack

    home = checked_settings().home
    for address in stack.use(home):
        errors.print(
            f"[yellow]note:[/] {escape(address)} is not used: this machine has a stack in {escape(str(home))}. "
            "To use other servers, set CIFAR_HOME to another folder.",
            soft_wrap=True,
        )
    return read_settings()


def give_up_soon(seconds: int = 5) -> None:
    """Otherwise MLflow's client waits minutes for a server that is gone. What the user has set stays."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(seconds))
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")


def require_servers(settings: Settings, *, patient: bool = False) -> None:
    """`ConfigError` if MLflow or S3 has no address, `StackError` if the embedded stack does not run, `TrackingError` if
    another MLflow does not answer: its client waits minutes for an answer.

    Later the client waits as long only for a `patient` command, which has hours of work to lose.
    """
    from cifar_tasks.deployment import probes, stack
    from cifar_tasks.tracking.server import require_answer

    if stack.exists(settings.home):
        try:
            probes.mlflow(os.environ["MLFLOW_TRACKING_URI"])
        except probes.ProbeError as error:
            raise StackError(f"MLflow of the stack in {settings.home} {error}. Start it: `cifar up`") from None
    else:  # otherwise `connect` has set the addresses of both
        if not os.environ.get("MLFLOW_TRACKING_URI"):
            raise ConfigError("there is no MLflow server: start the stack (`cifar up`) or set MLFLOW_TRACKING_URI.")
        require_s3_address(settings)
        require_answer(os.environ["MLFLOW_TRACKING_URI"])
    if not patient:
        give_up_soon(30)  # MLflow reads a whole file from S3 before it sends the first byte


def require_s3_address(settings: Settings) -> None:
    """`ConfigError` if S3 has none: boto3 would ask AWS, for a bucket that is not the user's."""
    named = [name for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL") if os.environ.get(name)]
    if not named and "bucket" not in settings.model_fields_set:
        raise ConfigError(
            "there is no S3 server: start the stack (`cifar up`) or set AWS_ENDPOINT_URL_S3. "
            "To use AWS, set CIFAR_BUCKET to a bucket of yours."
        )


def limit_threads() -> None:
    """torch knows the cores of the machine, and not the CPU quota of a container. Before torch is imported."""
    if (cores := cpu_cores()) < machine_cores():
        os.environ.setdefault("OMP_NUM_THREADS", str(cores))
