"""What `make restore` refuses before it changes anything, with a stand-in for `docker compose` that notes its calls.

`tests/compose/test_restore.py` restores a real deployment, where there is a Docker engine.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from cifar_tasks.settings import PROJECT

FILES = ("manifest.json", "airflow.dump", "mlflow.dump", "optuna.dump", "objects.tar")
COMPOSE = """\
echo "$*" | tr '\\n' ' ' >>calls; echo >>calls
case "$*" in
*"backup verify"*) cat >/dev/null; echo "mlflow runs 3"; exit ${VERIFY:-0} ;;
*"backup push"*) cat >/dev/null ;;
*"backup count"*) echo ${OBJECTS:-0} ;;
*pg_tables*) echo ${TABLES:-0} ;;
*to_regclass*) [ ${TABLES:-0} = 0 ] && echo f || echo t ;;
*"count(*)"*) echo ${ROWS:-3} ;;
*"pg_restore --list"*) cat >/dev/null; exit ${LIST:-0} ;;
*pg_restore*) cat >/dev/null ;;
*"config --services"*) printf 'postgres\\nstorage\\nredis\\nscheduler\\n' ;;
*) echo 1 ;;
esac
"""
CHANGES = ("stop scheduler", "flushall", "DROP OWNED", "--single-transaction", "backup push", "UPDATE task_instance")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A checkout with secrets and a backup."""
    shutil.copytree(PROJECT / "docker", tmp_path / "docker")
    for name in (".env", *(f"backup/{file}" for file in FILES)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "compose").write_text(COMPOSE)
    return tmp_path


def restore(tree: Path, **variables: str) -> tuple[int, str, list[str]]:
    """Exit status, messages, and the calls of `docker compose`."""
    environment = {"PATH": os.environ["PATH"], "COMPOSE": "sh compose", "FROM": "backup", **variables}
    command = ["sh", str(tree / "docker" / "restore.sh")]
    done = subprocess.run(command, env=environment, cwd=tree, capture_output=True, text=True, timeout=300, check=False)
    calls = tree / "calls"
    return done.returncode, done.stderr, calls.read_text().splitlines() if calls.exists() else []


def changes(calls: list[str]) -> list[str]:
    return [change for call in calls for change in CHANGES if change in call]


@pytest.mark.parametrize(
    ("used", "shown"), [({"TABLES": "7"}, "database mlflow: 7 tables"), ({"OBJECTS": "2"}, "buckets: 2 objects")]
)
def test_a_deployment_that_has_data_is_left_as_it_is(tree: Path, used: dict[str, str], shown: str) -> None:
    status, messages, calls = restore(tree, **used)
    assert status == 1
    assert "This deployment has run already" in messages
    assert shown in messages
    assert "To do so, add FORCE=1. Nothing was changed" in messages
    assert changes(calls) == []


@pytest.mark.parametrize("given", [{}, {"TABLES": "7", "OBJECTS": "2", "FORCE": "1"}])
def test_databases_and_objects_come_into_an_empty_deployment_or_by_force_into_a_used_one(
    tree: Path, given: dict[str, str]
) -> None:
    status, messages, calls = restore(tree, **given)
    assert status == 0, messages
    each = ["DROP OWNED", "--single-transaction"]
    assert changes(calls) == ["stop scheduler", "flushall", *each * 3, "backup push", "UPDATE task_instance"]
    assert calls[-1] == "up -d "


@pytest.mark.parametrize("missing", [".env", *(f"backup/{file}" for file in FILES)])
def test_nothing_is_started_for_a_backup_that_is_not_whole_or_without_secrets(tree: Path, missing: str) -> None:
    (tree / missing).unlink()
    status, messages, calls = restore(tree, FORCE="1")
    assert (status, calls) == (1, [])
    assert Path(missing).name in messages


def test_a_restore_needs_to_know_which_backup(tree: Path) -> None:
    status, messages, calls = restore(tree, FROM="", FORCE="1")
    assert (status, calls) == (1, [])
    assert "FROM=… names the folder of a backup" in messages


@pytest.mark.parametrize("unusable", [{"VERIFY": "1"}, {"LIST": "1"}])
def test_a_backup_that_is_damaged_or_cannot_be_read_changes_nothing(tree: Path, unusable: dict[str, str]) -> None:
    status, messages, calls = restore(tree, FORCE="1", **unusable)
    assert status == 1
    assert "othing was changed" in messages
    assert changes(calls) == []


def test_nothing_is_left_of_a_step_that_ends_at_once(tree: Path) -> None:
    (tree / "docker" / "steps.sh").write_text("""\
        . "$(dirname "$0")/backup-steps.sh"
        for each in 1 2 3 4 5 6 7 8 9 10; do step "step $each" true; done
        """)
    command = ["sh", "docker/steps.sh"]
    # It ends when no process writes to its output any more.
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, timeout=30, check=True)
    assert done.stderr.splitlines() == [f"step {each}" for each in range(1, 11)]


def test_a_restore_that_lacks_rows_says_that_it_is_not_done(tree: Path) -> None:
    status, messages, calls = restore(tree, ROWS="2")
    assert status == 1
    assert "mlflow.runs does not have 3 rows" in messages
    assert "The restore is NOT done" in messages
    assert calls[-1] != "up -d "
