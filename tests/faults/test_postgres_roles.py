"""The script that makes a role and a database for each service, on a PostgreSQL of its own."""

import os
import subprocess
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest

from cifar_tasks.deployment import stack as embedded
from cifar_tasks.deployment.stack.environment import HOST, read_secrets, started_with
from cifar_tasks.deployment.stack.postgres import binary
from cifar_tasks.settings import PROJECT

ROLES = ("airflow", "celery", "mlflow", "optuna")


class Server:
    """An empty PostgreSQL."""

    def __init__(self, home: Path) -> None:
        self._port = started_with(home).postgres_port
        self.superuser = "cifar", read_secrets(home)["postgres_password"]
        for name in ("airflow", "mlflow", "optuna"):
            self.execute(f"DROP DATABASE {name}")

    def execute(self, statement: str, user: tuple[str, str] | None = None, database: str = "postgres") -> list[object]:
        name, password = user or self.superuser
        address = {"host": HOST, "port": self._port, "user": name, "password": password, "dbname": database}
        with closing(psycopg2.connect(**address)) as connection, connection.cursor() as cursor:
            connection.autocommit = True
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def make_roles(self, admin: tuple[str, str], password: str) -> None:
        passwords = {f"{role.upper()}_DB_PASSWORD": password + role for role in ROLES}
        address = {"PGHOST": HOST, "PGPORT": str(self._port), "POSTGRES_USER": admin[0], "PGPASSWORD": admin[1]}
        path = {"PATH": f"{Path(binary('psql')).parent}:{os.environ['PATH']}"}
        script = ["sh", str(PROJECT / "docker" / "postgres-roles.sh")]
        subprocess.run(script, check=True, env=os.environ | passwords | address | path, timeout=60)


@pytest.fixture
def server(own_home: Path) -> Server:
    embedded.up(own_home, print, without=("s3", "mlflow", "airflow"))
    return Server(own_home)


def test_each_role_opens_its_own_database_only_whatever_its_password(server: Server) -> None:
    password = "a'b\"c\\$(id) `id` "
    server.make_roles(server.superuser, password)
    for role in ROLES:
        assert server.execute("SELECT current_user", (role, password + role), role) == [(role,)]
        for other in {*ROLES} - {role}:
            with pytest.raises(psycopg2.OperationalError, match="permission denied"):
                server.execute("SELECT 1", (role, password + role), other)


def test_the_script_goes_on_where_it_was_interrupted(server: Server) -> None:
    server.execute("CREATE ROLE airflow LOGIN PASSWORD 'old'")
    for password in ("first", "second"):
        server.make_roles(server.superuser, password)
    assert server.execute("SELECT current_user", ("airflow", "secondairflow"), "airflow") == [("airflow",)]


def test_an_admin_that_is_no_superuser_makes_the_roles(server: Server) -> None:
    admin = "admin", "word"
    server.execute("CREATE ROLE admin LOGIN CREATEROLE CREATEDB PASSWORD 'word'")
    for _ in range(2):
        server.make_roles(admin, "word")
    owners = server.execute("SELECT datname::text, datdba::regrole::text FROM pg_database WHERE NOT datistemplate")
    assert set(owners) >= {(role, role) for role in ROLES}
