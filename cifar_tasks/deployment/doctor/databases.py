"""Does each service's role open its own database, and no other?"""

import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from cifar_tasks.deployment.doctor.deployment import TIMEOUT, Deployment
from cifar_tasks.deployment.doctor.finding import Finding, failure, ok, skipped, warning

VARIABLES = {
    "airflow": "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",
    "celery": "AIRFLOW__CELERY__RESULT_BACKEND",
    "mlflow": "MLFLOW_BACKEND_STORE_URI",
    "optuna": "CIFAR_STUDIES_URL",
}
"""Service → where its URL is. Each part of a deployment has some of them, an administrator most."""
CLOSED = ("permission denied for database", "no pg_hba.conf entry", "pg_hba.conf rejects", "does not exist")


def databases(variables: Mapping[str, str]) -> dict[str, str]:
    """Service → its URL as libpq spells it, of those in the environment."""
    found = {}
    for service, name in VARIABLES.items():
        url = variables.get(name, "").removeprefix("db+")
        scheme, _, rest = url.partition("://")
        if rest and scheme.startswith("postgres"):
            found[service] = f"postgresql://{rest}"
    return found


def connect(url: str) -> Any:
    import psycopg2

    return psycopg2.connect(url, connect_timeout=int(TIMEOUT))


def refusal(error: Exception) -> str:
    """The last part of what libpq says: `FATAL:  password authentication failed for user "celery"`."""
    first = str(error).strip().splitlines()[0]
    return first.rpartition("failed: ")[2].removeprefix("FATAL:").strip()


def roles(deployment: Deployment) -> Finding:
    import psycopg2

    well, refused = [], []
    for service, url in databases(os.environ).items():
        try:
            connect(url).close()
            well.append(service)
        except psycopg2.OperationalError as error:
            refused.append(f"{service} ({refusal(error)})")
    if refused:
        return failure(
            f"cannot log in: {', '.join(refused)}",
            f"The passwords in {deployment.secrets_in()} must be those with which the databases were made; "
            "change one with ALTER ROLE … PASSWORD in psql",
        )
    return ok(f"{', '.join(well)}: each opens its own database")


def separation(deployment: Deployment) -> Finding:
    """Every role tries every other service's database."""
    urls = databases(os.environ)
    if deployment.embedded:
        return skipped("one role for all databases: the stack of one person")
    names = {*VARIABLES, *(urlsplit(url).path.lstrip("/") for url in urls.values())}
    tried = {
        (service, name): _try(url, name)
        for service, url in urls.items()
        for name in sorted(names - {urlsplit(url).path.lstrip("/")})
    }
    return judge_separation(tried)


def _try(url: str, database: str) -> str | None:
    """Why the role was refused; None if it was not."""
    import psycopg2

    try:
        connect(urlunsplit(urlsplit(url)._replace(path=f"/{database}"))).close()
    except psycopg2.OperationalError as error:
        return str(error)
    return None


def judge_separation(tried: Mapping[tuple[str, str], str | None]) -> Finding:
    """`tried`: (service, database) → why PostgreSQL refused, None if it did not."""
    opened = [f"{service} opens {database}" for (service, database), reason in tried.items() if reason is None]
    if opened:
        return failure(
            f"roles see what is not theirs: {', '.join(opened)}",
            "A role and a database a service, as in docker/postgres-roles.sh; in psql: "
            "REVOKE CONNECT ON DATABASE … FROM PUBLIC",
        )
    unclear = [reason for reason in tried.values() if reason and not any(word in reason for word in CLOSED)]
    if unclear:
        return warning(f"not certain: {refusal(Exception(unclear[0]))}", "Try again when PostgreSQL is less busy")
    services = sorted({service for service, _ in tried})
    return ok(f"{', '.join(services)}: no role opens another's database")
