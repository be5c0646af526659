"""The job that runs before Airflow's components, on a PostgreSQL of its own."""

import subprocess
import sys
from contextlib import closing
from pathlib import Path

import psycopg2

from cifar_tasks.deployment import stack as embedded
from cifar_tasks.deployment.stack.environment import overlay
from cifar_tasks.settings import PROJECT


def test_the_pool_has_as_many_slots_as_the_settings_say_at_each_start(own_home: Path) -> None:
    embedded.up(own_home, print, without=("airflow", "mlflow", "s3"))
    for slots in (5, 3):
        variables = {**embedded.environment(own_home), "CIFAR_GPU_SLOTS": str(slots)}
        command = [sys.executable, "-m", "cifar_tasks.deployment.airflow_setup"]
        done = subprocess.run(
            command, cwd=PROJECT, env=overlay({"PATH": "/bin"}, variables), capture_output=True, text=True, timeout=180
        )
        assert done.returncode == 0, done.stderr
        assert pools(variables) == {"default_pool": 128, "gpu": slots}


def pools(variables: dict[str, str]) -> dict[str, int]:
    url = variables["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].replace("+psycopg2", "")
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT pool, slots FROM slot_pool")
        return dict(cursor.fetchall())
