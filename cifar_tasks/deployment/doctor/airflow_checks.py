"""Who may use Airflow, do its parts share their secrets, and do workers, slots and time limits fit together?"""

import os
from typing import Any

from cifar_tasks.deployment import stack
from cifar_tasks.deployment.airflow_api import DAG, airflow, find_dag, import_errors
from cifar_tasks.deployment.compose.airflow_component import wrong_secrets
from cifar_tasks.deployment.doctor.check_runner import Deployment, Finding, grade
from cifar_tasks.deployment.doctor.storage_checks import refuse_anonymous


def airflow_login(deployment: Deployment) -> str:
    """If the admin is refused: {restart}. If others are not: AIRFLOW__CORE__AUTH_MANAGER as in docker-compose.yaml."""
    if not deployment.airflow_password:
        raise Finding("skipped", "no password of Airflow's admin here: CIFAR_AIRFLOW_PASSWORD is not set")
    refused = refuse_anonymous(deployment, f"{deployment.airflow_url}/api/v2/dags")
    with airflow(deployment.airflow_url, stack.AIRFLOW_USER, deployment.airflow_password):
        return f"{stack.AIRFLOW_USER} logs in; {refused}"


def gpu_pool(deployment: Deployment) -> str:
    """Apply CIFAR_GPU_SLOTS: {restart}"""
    slots, wanted = pool_slots(deployment), deployment.settings.gpu_slots
    message = f"{slots} slots, CIFAR_GPU_SLOTS is {wanted}" if slots else "there is no pool gpu: no training can start"
    return grade(message, warning=slots != wanted, failure=not slots)


def pool_slots(deployment: Deployment) -> int:
    """0 if there is no pool."""
    from airflow_client.client.api.pool_api import PoolApi

    with airflow(deployment.airflow_url, stack.AIRFLOW_USER, deployment.airflow_password) as client:
        pools = PoolApi(client).get_pools(_request_timeout=deployment.timeout).pools
    return sum(pool.slots for pool in pools if pool.name == "gpu")


def training_dag(deployment: Deployment) -> str:
    """Unpause it, with the switch on its page in Airflow: until then no run starts, and no schedule counts."""
    timeout = deployment.timeout
    with airflow(deployment.airflow_url, stack.AIRFLOW_USER, deployment.airflow_password) as client:
        dag, broken = find_dag(client, _request_timeout=timeout), import_errors(client, _request_timeout=timeout)
    if broken:
        raise Finding(
            "failure",
            "; ".join(broken),
            "Correct the variable or the file that it names; {restart}".format(**deployment.hints()),
        )
    if dag is None:
        raise Finding("failure", f"Airflow does not know {DAG}", deployment.start(["airflow-dag-processor"]))
    schedule = deployment.settings.schedule
    message = f"runs at {dag.timetable_summary}" if dag.timetable_summary else "runs when it is triggered"
    if dag.next_dagrun_run_after:
        message += f", next {dag.next_dagrun_run_after:%Y-%m-%d %H:%M %Z}"
    if schedule and schedule != dag.timetable_summary:
        raise Finding("warning", f"{message}; CIFAR_SCHEDULE is {schedule}", deployment.hints()["restart"])
    return grade(f"is paused; it {message}" if dag.is_paused else message, warning=dag.is_paused)


def shared_secrets(deployment: Deployment) -> str:
    """Copy the .env of the API server's machine. After a change on purpose: docker compose up -d"""
    if deployment.embedded:
        raise Finding("skipped", "all parts of the embedded stack read them from one file")
    try:
        wrong = wrong_secrets(deployment.store())
    except KeyError:
        remedy = "docker compose up -d init; docker compose logs init"
        raise Finding("failure", "init has not recorded them in S3", remedy) from None
    return grade(", ".join(wrong) or "the same in all parts", failure=bool(wrong))


def queues(deployment: Deployment) -> str:
    workers = queue_workers(deployment)
    return grade(
        ", ".join(f"{queue}: {len(workers[queue])} workers" for queue in workers), failure=[] in workers.values()
    )


def gpu_slots(deployment: Deployment) -> str:
    """Set CIFAR_GPU_SLOTS in .env and run docker compose up -d: pool and workers follow it."""
    slots, workers = pool_slots(deployment), queue_workers(deployment)["gpu"]
    stats = ask_workers("stats", deployment, workers) if workers else {}
    room = sum(worker["pool"]["max-concurrency"] for worker in stats.values())
    return grade(f"{slots} slots, {len(workers)} GPU workers with room for {room} trainings", warning=slots != room)


def queue_workers(deployment: Deployment) -> dict[str, list[str]]:
    """Queue → names of its workers."""
    answers = ask_workers("active_queues", deployment)
    consumed = {worker: {queue["name"] for queue in queues} for worker, queues in answers.items()}
    return {queue: [worker for worker in consumed if queue in consumed[worker]] for queue in ("default", "gpu")}


def ask_workers(question: str, deployment: Deployment, names: list[str] | None = None) -> dict[str, Any]:
    """Celery waits the whole timeout for the answers of all workers: it does not know how many there are."""
    from celery import Celery  # type: ignore[import-untyped]

    with Celery(broker=os.environ["AIRFLOW__CELERY__BROKER_URL"], set_as_current=False) as app:
        return getattr(app.control.inspect(names, deployment.timeout), question)() or {}


def visibility_timeout(deployment: Deployment) -> str:
    """Set AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT to more than both, or a task runs twice."""
    # Without the variables Airflow's own defaults count.
    visible = float(os.environ.get("AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT") or 86_400)
    queued = float(os.environ.get("AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT") or 600)
    longest = longest_task(deployment)
    message = f"{visible:.0f} s; a task may work {longest:.0f} s and wait {queued:.0f} s in the queue"
    return grade(message, failure=visible <= longest + queued)


def longest_task(deployment: Deployment) -> float:
    """The longest `execution_timeout` of all tasks of all DAGs, in seconds."""
    from airflow_client.client.api.dag_api import DAGApi
    from airflow_client.client.api.task_api import TaskApi

    timeout = deployment.timeout
    with airflow(deployment.airflow_url, stack.AIRFLOW_USER, deployment.airflow_password) as client:
        dags = DAGApi(client).get_dags(_request_timeout=timeout).dags
        tasks = [task for dag in dags for task in TaskApi(client).get_tasks(dag.dag_id, _request_timeout=timeout).tasks]
    limits = [task.execution_timeout for task in tasks if task.execution_timeout]
    return max((limit.days * 86_400.0 + limit.seconds for limit in limits), default=0.0)
