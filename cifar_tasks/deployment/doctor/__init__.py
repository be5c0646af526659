"""`cifar doctor`: is the deployment healthy, and what to do where it is not."""

from cifar_tasks.deployment.doctor import airflow_checks, machine_checks, service_checks, storage_checks
from cifar_tasks.deployment.doctor.check_runner import Check

CHECKS = (
    Check("Services", "PostgreSQL", service_checks.postgresql, services=("postgres",)),
    Check("Services", "Redis", service_checks.redis, services=("redis",)),
    Check("Services", "S3", service_checks.s3, services=("s3",)),
    Check("Services", "MLflow", service_checks.mlflow, services=("mlflow",)),
    Check("Services", "Airflow", service_checks.airflow, services=("airflow-api-server",)),
    Check("Services", "Airflow components", service_checks.airflow_components, ("Airflow",), service_checks.COMPONENTS),
    Check("Storage", "write and read", storage_checks.write_and_read, ("S3",), ("s3",)),
    Check("Storage", "conditional write", storage_checks.conditional_write, ("S3",), ("s3",)),
    Check("Storage", "anonymous access", storage_checks.anonymous_access),
    Check("Storage", "delete permission", storage_checks.delete_permission, ("S3",), ("s3",)),
    Check("Storage", "clock of S3", storage_checks.clock(storage_checks.s3_url)),
    Check("Tracking", "artifacts", storage_checks.artifacts, ("MLflow",), ("mlflow", "s3")),
    Check("Tracking", "experiment", storage_checks.experiment, ("MLflow",), ("mlflow",)),
    Check("Tracking", "champion", storage_checks.champion, ("MLflow",), ("mlflow", "s3")),
    Check("Tracking", "promotion log", storage_checks.promotion_log, ("S3", "MLflow"), ("mlflow", "s3")),
    Check("Tracking", "MLflow log-in", storage_checks.mlflow_login),
    Check("Tracking", "clock of MLflow", storage_checks.clock(storage_checks.mlflow_url)),
    Check("Databases", "roles", service_checks.roles, ("PostgreSQL",)),
    Check("Databases", "separation", service_checks.separation, ("roles",)),
    Check("Airflow", "Airflow log-in", airflow_checks.airflow_login, ("Airflow",)),
    Check("Airflow", "gpu pool", airflow_checks.gpu_pool, ("Airflow log-in",)),
    Check("Airflow", "training DAG", airflow_checks.training_dag, ("Airflow log-in",), ("airflow-dag-processor",)),
    Check("Airflow", "other DAGs", airflow_checks.other_dags, ("Airflow log-in",), ("airflow-dag-processor",)),
    Check("Airflow", "shared secrets", airflow_checks.shared_secrets, ("S3",), ("s3",)),
    Check("Workers", "queues", airflow_checks.queues, ("Redis",), ("worker", "gpu-worker", "promotion-worker")),
    Check("Workers", "GPU slots", airflow_checks.gpu_slots, ("Redis", "gpu pool"), ("gpu-worker",)),
    Check("Workers", "visibility timeout", airflow_checks.visibility_timeout, ("Redis", "Airflow log-in")),
    Check("This machine", "variables", machine_checks.variables),
    Check("This machine", "disk", machine_checks.disk),
    Check("This machine", "memory", machine_checks.memory),
    Check("This machine", "shared memory", machine_checks.shared_memory),
    Check("This machine", "GPU", machine_checks.gpu),
)
