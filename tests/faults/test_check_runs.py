"""Which runs stand for a check of a dataset line, in an Airflow database of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cifar_tasks.settings import PROJECT

QUEUED = """
import json, sys
sys.path.append("plugins")
from airflow.cli.cli_parser import get_parser
arguments = get_parser().parse_args(["db", "migrate"])
arguments.func(arguments)
from airflow.models import DagRun
from airflow.sdk.timezone import utcnow
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState
from airflow.utils.types import DagRunTriggeredByType, DagRunType
from line_webhook import check_runs
more = {"run_type": DagRunType.MANUAL, "state": DagRunState.QUEUED, "triggered_by": DagRunTriggeredByType.REST_API}
with create_session(scoped=False) as session:
    for run_id, conf in json.loads(sys.argv[1]).items():
        session.add(DagRun(dag_id=check_runs.DATASET_DAG, run_id=run_id, conf=conf, run_after=utcnow(), **more))
    session.flush()
    print(json.dumps(sorted(run.run_id for run in check_runs._active_runs("pets", session))))
"""


@pytest.mark.timeout(300)
def test_a_run_that_sends_an_event_only_does_not_stand_for_a_check(tmp_path: Path) -> None:
    confs = {
        "event": {"line": "pets", "event_only": True},
        "check": {"line": "pets"},
        "check-by-form": {"line": "pets", "event_only": False},
        "check-by-schedule": None,
        "other": {"line": "cars"},
    }
    own = {"AIRFLOW_HOME": str(tmp_path), "CIFAR_HOME": str(tmp_path / "home")}
    own["CIFAR_DATASET_LINES"] = json.dumps({"pets": {"source": "digits"}})
    command = [sys.executable, "-c", QUEUED, json.dumps(confs)]
    done = subprocess.run(
        command, cwd=PROJECT, env=os.environ | own, capture_output=True, text=True, timeout=250, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == ["check", "check-by-form", "check-by-schedule"]
