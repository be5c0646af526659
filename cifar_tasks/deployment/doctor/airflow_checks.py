"""Who may use Airflow, do its parts share their secrets, and do workers, slots and time limits fit together?"""

import os

from cifar_tasks.deployment import probes
from cifar_tasks.deployment.airflow_api import find_dag, import_errors, longest_task, paused_dags, pool_slots
from cifar_tasks.deployment.compose.airflow_component import wrong_secrets
from cifar_tasks.deployment.dag_ids import TRAINING_DAG
from cifar_tasks.deployment.doctor.check_runner import Deployment, Finding, judge
from cifar_tasks.deployment.doctor.storage_checks import refuse_anonymous


def airflow_login(deployment: Deployment) -> str:
    """If the admin is refused: {restart}. If others are not: AIRFLOW__CORE__AUTH_MANAGER as in docker-compose.yaml."""
    judge("no password of Airflow's admin: CIFAR_AIRFLOW_PASSWORD is not set", skipped=not deployment.airflow_password)
    refused = refuse_anonymous(deployment, f"{deployment.airflow_url}/api/v2/dags")
    with deployment.airflow():
        return f"{deployment.airflow_user} logs in; {refused}"


def gpu_pool(deployment: Deployment) -> str:
    """Apply CIFAR_GPU_SLOTS: {restart}"""
    with deployment.airflow() as client:
        slots, wanted = pool_slots(client), deployment.settings.gpu_slots
    message = f"{slots} slots, CIFAR_GPU_SLOTS is {wanted}" if slots else "there is no pool gpu: no training can start"
    return judge(message, warning=slots != wanted, failure=not slots)


def training_dag(deployment: Deployment) -> str:
    """Unpause it, with the switch on its page in Airflow: until then no run starts, and no schedule counts."""
    with deployment.airflow() as client:
        dag, broken = find_dag(client, TRAINING_DAG), import_errors(client)
    if broken:
        raise Finding("failure", "; ".join(broken), "Correct the variable or the file that it names; {restart}")
    if dag is None:
        raise Finding("failure", f"Airflow does not know {TRAINING_DAG}", "{start}")
    schedule = (dag.timetable_summary or "").removeprefix("Asset or ")  # so Airflow shows an `AssetOrTimeSchedule`
    message = f"runs at {schedule}" if schedule else "runs when it is triggered"
    if schedule != (dag.timetable_summary or ""):
        message += " and for new versions of a dataset line"
    if dag.next_dagrun_run_after:
        message += f", next {dag.next_dagrun_run_after:%Y-%m-%d %H:%M %Z}"
    if (wanted := deployment.settings.schedule) and not _is_same_schedule(wanted, schedule):
        raise Finding("warning", f"{message}; CIFAR_SCHEDULE is {wanted}", "{restart}")
    return judge(f"is paused; it {message}" if dag.is_paused else message, warning=dag.is_paused)


def _is_same_schedule(one: str, other: str) -> bool:
    """Airflow shows `@daily` as `0 0 * * *`."""
    from croniter import CroniterError, croniter

    try:
        return bool(croniter.expand(one) == croniter.expand(other))
    except CroniterError:
        return False


def other_dags(deployment: Deployment) -> str:
    """Unpause them, with the switches on the page Dags of Airflow: until then their runs wait."""
    with deployment.airflow() as client:
        paused = [dag_id for dag_id in paused_dags(client) if dag_id != TRAINING_DAG]
    return judge(f"paused: {', '.join(paused)}" if paused else "none is paused", warning=bool(paused))


def shared_secrets(deployment: Deployment) -> str:
    """Copy the .env of the API server's machine. After a change on purpose: docker compose up -d"""
    judge("all parts of the embedded stack read them from one file", skipped=deployment.embedded)
    wrong = wrong_secrets(deployment.store())
    return judge(", ".join(wrong) or "the same in all parts", failure=bool(wrong))


def queues(deployment: Deployment) -> str:
    workers = probes.celery_workers(os.environ["AIRFLOW__CELERY__BROKER_URL"], deployment.timeout)
    queues = ["default", "gpu", *filter(None, [deployment.settings.promotion_queue])]
    counts = {queue: sum(queue in consumed for consumed, _ in workers) for queue in queues}
    message = ", ".join(f"{queue}: {count} workers" for queue, count in counts.items())
    return judge(message, failure=0 in counts.values())


def gpu_slots(deployment: Deployment) -> str:
    """Set CIFAR_GPU_SLOTS in .env and run docker compose up -d: pool and workers follow it."""
    with deployment.airflow() as client:
        slots = pool_slots(client)
    workers = probes.celery_workers(os.environ["AIRFLOW__CELERY__BROKER_URL"], deployment.timeout)
    room = [tasks for consumed, tasks in workers if "gpu" in consumed]
    message = f"{slots} slots, {len(room)} GPU workers with room for {sum(room)} trainings"
    return judge(message, warning=slots != sum(room))


def visibility_timeout(deployment: Deployment) -> str:
    """Set AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT to more than both, or a task runs twice."""
    # Without the variables Airflow's own defaults count.
    visible = float(os.environ.get("AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT") or 86_400)
    queued = float(os.environ.get("AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT") or 600)
    with deployment.airflow() as client:
        longest = longest_task(client)
    message = f"{visible:.0f} s; a task may work {longest:.0f} s and wait {queued:.0f} s in the queue"
    return judge(message, failure=visible <= longest + queued)
