"""Starts a run of the DAG of dataset lines, unless one will list the source anyway.

Works in the database of Airflow, as Airflow's own routes do: a token that calls its public API would expire.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta

from airflow.api.common.trigger_dag import trigger_dag
from airflow.models import DagRun, Log
from airflow.models.asset import AssetModel
from airflow.models.taskinstance import TaskInstance
from airflow.sdk.timezone import utcnow
from airflow.utils.session import create_session
from airflow.utils.sqlalchemy import with_row_locks
from airflow.utils.state import DagRunState, TaskInstanceState
from airflow.utils.types import DagRunTriggeredByType
from sqlalchemy import select
from sqlalchemy.orm import Session

from cifar_tasks.deployment.dag_ids import DATASET_DAG
from cifar_tasks.settings import Settings

WHO = "webhook"
CHECK, WAIT = "check_source", "wait_for_delivery"
"""Tasks that list the source."""
AT_LEAST = timedelta(seconds=10)
"""Between the runs of a line whose objects go on to change."""
_NOT_BEGUN = (
    None,
    TaskInstanceState.SCHEDULED,
    TaskInstanceState.QUEUED,
    TaskInstanceState.UP_FOR_RESCHEDULE,
    TaskInstanceState.UP_FOR_RETRY,
)
"""A task in one of these has its listing before it. A running one may have listed already."""


def start_checks(lines: Sequence[str]) -> dict[str, str]:
    """What was done for each line, in words; `LookupError` if Airflow has not parsed the DAG with it yet."""
    return {line: _start_check(line) for line in lines}


def _start_check(line: str) -> str:
    # A session of its own: Airflow's functions commit the one that they share in this thread, and so free the lock.
    with create_session(scoped=False) as session:
        _lock(line, session)
        active = _active_runs(line, session)
        newest = max(active, key=lambda run: run.id, default=None)
        states = _states(newest, session) if newest else {}
        if newest and _will_list(newest.state, states):
            return f"{newest.run_id} will list the source"
        now = utcnow()
        run_after = now
        if TaskInstanceState.RUNNING in (states.get(CHECK), states.get(WAIT)):
            # What has just changed is not complete before; until then this run stands for all notifications.
            settle = timedelta(seconds=Settings().dataset_lines[line].settle_seconds)
            run_after += max(AT_LEAST, settle)
        run_id = f"{WHO}__{line}__{now.isoformat()}"
        trigger_dag(
            DATASET_DAG,
            triggered_by=DagRunTriggeredByType.REST_API,
            triggering_user_name=WHO,
            run_id=run_id,
            run_after=run_after,
            conf={"line": line},
            session=session,
        )
        session.add(_audit(line, run_id))
        return f"started {run_id}"


def _lock(line: str, session: Session) -> None:
    """Until the end of the transaction: of many notifications at a time one starts a run, and the others see it."""
    asset = select(AssetModel.id).where(AssetModel.uri == f"cifar://sources/{line}")
    if session.scalar(with_row_locks(asset, session)) is None:
        raise LookupError(f"Airflow has not read the DAG {DATASET_DAG} with the dataset line {line} yet.")


def _active_runs(line: str, session: Session) -> list[DagRun]:
    lines = Settings().dataset_lines
    default = line if len(lines) == 1 else None  # as the form has it
    active = select(DagRun).where(
        DagRun.dag_id == DATASET_DAG, DagRun.state.in_((DagRunState.QUEUED, DagRunState.RUNNING))
    )
    checks = [run for run in session.scalars(active) if not (run.conf or {}).get("event_only")]
    return [run for run in checks if (run.conf or {}).get("line", default) == line]


def _states(run: DagRun, session: Session) -> dict[str, str | None]:
    tasks = select(TaskInstance.task_id, TaskInstance.state).where(
        TaskInstance.dag_id == DATASET_DAG, TaskInstance.run_id == run.run_id, TaskInstance.task_id.in_((CHECK, WAIT))
    )
    return {task: state for task, state in session.execute(tasks)}  # noqa: C416 – dict() takes a result for a mapping


def _will_list(run: str | None, tasks: Mapping[str, str | None]) -> bool:
    if run == DagRunState.QUEUED or tasks.get(CHECK) in _NOT_BEGUN:
        return True
    return tasks.get(CHECK) == TaskInstanceState.SUCCESS and tasks.get(WAIT) in _NOT_BEGUN


def _audit(line: str, run_id: str) -> Log:
    """As Airflow's API logs a run that a user starts."""
    extra = json.dumps({"conf": {"line": line}, "method": "POST"})
    return Log("trigger_dag_run", owner=WHO, owner_display_name=WHO, dag_id=DATASET_DAG, run_id=run_id, extra=extra)
