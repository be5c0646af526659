"""The embedded stack: PostgreSQL, S3, MLflow and Airflow on this machine, without Docker and without root."""

from cifar_tasks.deployment.stack.environment import (
    AIRFLOW_USER,
    environment,
    exists,
    password_file,
    shell_commands,
    use,
)
from cifar_tasks.deployment.stack.supervise import ServiceStatus, down, status, up

__all__ = [
    "AIRFLOW_USER",
    "ServiceStatus",
    "down",
    "environment",
    "exists",
    "password_file",
    "shell_commands",
    "status",
    "up",
    "use",
]
