"""Who may use the routes of the plugin: each role of both auth managers, in an Airflow with the plugin."""

import json
import os
import subprocess
import sys
from pathlib import Path

from cifar_tasks.settings import PROJECT
from tests.airflow_roles import GRANTED, NO_LOGIN, NO_PERMISSION, OTHER_DAG, PAGE, PLUGINS, TRIGGERS, WEBHOOK

Answers = dict[str, dict[str, int]]


def answers_of(manager: str, home: Path) -> Answers:
    """Role → address → status, from an Airflow with this auth manager."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "AWS", "MLFLOW"))}
    own |= {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__AUTH_MANAGER": manager,
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(PROJECT / "plugins"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
        "AIRFLOW__API_AUTH__JWT_SECRET": "secret" * 12,
        "CIFAR_DATASET_LINES": '{"pets": {"source": "s3://team/pets"}}',
        "CIFAR_WEBHOOK_TOKEN": "token" * 6,
    }
    result = home / "answers.json"
    command = [sys.executable, "-m", "tests.airflow_roles", str(result)]
    done = subprocess.run(command, env=own, cwd=PROJECT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(result.read_text())


def of_page(answers: dict[str, int]) -> list[int]:
    found = [status for address, status in answers.items() if address.startswith(PAGE)]
    assert len(found) >= 3
    return found


def check(answers: Answers, refused: set[str]) -> None:
    for role, found in answers.items():
        webhook = {status for address, status in found.items() if address.startswith(WEBHOOK)}
        assert webhook == {401}, role  # it has a token of its own, which is no user's
        if role == NO_LOGIN:
            assert set(of_page(found)) == {401}
        elif role in refused:
            assert set(of_page(found)) == {403}, role
        else:
            assert set(of_page(found)).isdisjoint({401, 403}), role
            assert found[f"{PAGE}/page"] == 200, role


def may_start(answers: Answers) -> set[str]:
    """Roles whose use of the forms of the page Airflow does not refuse."""
    for address in TRIGGERS:
        assert answers[NO_LOGIN][address] == 401
        assert {found[address] for found in answers.values()} == {401, 403, 404}
    return {role for role, found in answers.items() if all(found[address] == 404 for address in TRIGGERS)}


def test_airflow_s_simple_auth_manager_shows_the_page_to_each_role_and_to_no_user_without_one(tmp_path):
    answers = answers_of("airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager", tmp_path)
    assert answers.keys() == {NO_LOGIN, NO_PERMISSION, "Viewer", "User", "Op", "Admin"}
    check(answers, refused={NO_PERMISSION})
    assert may_start(answers) == {"User", "Op", "Admin"}


def test_fab_shows_the_page_to_each_role_that_may_read_the_dag(tmp_path):
    answers = answers_of("airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager", tmp_path)
    assert answers.keys() == {NO_LOGIN, NO_PERMISSION, OTHER_DAG, GRANTED, "Viewer", "User", "Op", "Admin"}
    check(answers, refused={NO_PERMISSION, OTHER_DAG})
    assert may_start(answers) == {"User", "Op", "Admin"}
    # Whom FAB does not show Airflow's list of plugins finds no entry in the navigation: docs/models-page.md.
    assert {role for role, found in answers.items() if found[PLUGINS] == 200} == {"Op", "Admin", GRANTED}
