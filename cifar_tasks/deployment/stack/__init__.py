"""The embedded stack: PostgreSQL, S3, MLflow and Airflow on this machine, without Docker and without root."""

from cifar_tasks.deployment.stack.environment import (
    AIRFLOW_USER,
    airflow_password,
    environment,
    exists,
    password_file,
    shell_commands,
    use,
)
from cifar_tasks.deployment.stack.supervise import ServiceStatus, down, status, up, was_left_out

__all__ = [
    "AIRFLOW_USER",
    "ServiceStatus",
    "airflow_password",
    "down",
    "environment",
    "exists",
    "password_file",
    "shell_commands",
    "status",
    "up",
    "use",
    "was_left_out",
]
