"""What the user of the workers may do in the compose deployment: an Airflow whose users `init` has made answers."""

import json
import os
import subprocess
import sys

from cifar_tasks.settings import PROJECT


def test_the_user_of_the_workers_may_write_a_note_and_neither_start_nor_delete_a_run_nor_read_secrets(tmp_path):
    own = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "AWS", "MLFLOW"))}
    own |= {
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__CORE__AUTH_MANAGER": "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager",
        "AIRFLOW__CORE__DAGS_FOLDER": str(tmp_path / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
        "AIRFLOW__API_AUTH__JWT_SECRET": "secret" * 12,
        "AIRFLOW_ADMIN_PASSWORD": "of the admin",
        "AIRFLOW_WORKER_PASSWORD": "of the worker",
    }
    result = tmp_path / "answers.json"
    command = [sys.executable, "-m", "tests.airflow_worker_user", str(result)]
    done = subprocess.run(command, env=own, cwd=PROJECT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(result.read_text()) == {
        "log in with the earlier password": 401,
        "log in": 201,
        "write a note": 404,  # allowed: there is no such run
        "read a run": 404,
        "start a run": 403,
        "delete a run": 403,
        "read connections": 403,
        "read variables": 403,
        "read the configuration": 403,
        "clear tasks": 403,
    }
