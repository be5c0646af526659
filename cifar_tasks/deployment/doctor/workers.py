"""Who works on which queue, how many trainings fit, and does the broker wait long enough for them?"""

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from cifar_tasks.deployment.doctor.airflow_checks import ask, pool_slots
from cifar_tasks.deployment.doctor.deployment import TIMEOUT, Deployment
from cifar_tasks.deployment.doctor.finding import Finding, failure, ok, warning

QUEUES = {"default": "worker", "gpu": "gpu-worker"}
"""Queue → the service of docker-compose.yaml that works on it."""
PATIENCE = 3.0
"""Seconds in which workers answer. Celery waits them out, as it does not know how many there are."""

Replies = Mapping[str, Any]
"""What each worker answers, by its name."""


def queues(_deployment: Deployment) -> Finding:
    found = _ask("active_queues", lambda replies: not missing_queues(replies))
    return judge_queues(found)


def missing_queues(replies: Replies) -> list[str]:
    return [queue for queue in QUEUES if not _on(queue, replies)]


def judge_queues(replies: Replies) -> Finding:
    """`replies` of Celery's `active_queues`."""
    missing = missing_queues(replies)
    if missing:
        services = " ".join(QUEUES[queue] for queue in missing)
        return failure(
            f"no worker answers on the queue {' and '.join(missing)}: its tasks wait",
            f"docker compose up -d {services} (restart, if it hangs); why: docker compose logs {services}",
        )
    return ok(", ".join(f"{len(_on(queue, replies))} on {queue}" for queue in QUEUES))


def _on(queue: str, replies: Replies) -> list[str]:
    return sorted(worker for worker, consumed in replies.items() if queue in {each["name"] for each in consumed})


def gpu_slots(deployment: Deployment) -> Finding:
    """Slots of the pool, against the workers that are there for them."""
    with ThreadPoolExecutor(2) as pool:
        asked = pool.submit(_ask, "active_queues", lambda replies: not missing_queues(replies))
        stats = pool.submit(_ask, "stats", bool)
        slots = pool_slots(deployment) or 0
        workers = _on("gpu", asked.result())
        said = stats.result()
    return judge_gpu_slots(slots, [said[name]["pool"]["max-concurrency"] for name in workers if name in said])


def judge_gpu_slots(slots: int, concurrency: list[int]) -> Finding:
    """`slots` of the pool `gpu`; `concurrency`: trainings at a time, a number a GPU worker."""
    places = sum(concurrency)
    if slots != places:
        return warning(
            f"the pool gpu has {slots} slots, its workers have room for {places}",
            f"Set CIFAR_GPU_SLOTS in .env ({places}, or what you want) and run docker compose up -d: both follow it",
        )
    return ok(f"{slots}: as many as the {len(concurrency)} workers of the queue gpu have room for")


def redelivery(deployment: Deployment) -> Finding:
    """Redis hands a task that is not acknowledged in time to a second worker, though the first still trains."""
    visibility = os.environ.get("AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT")
    queued = float(os.environ.get("AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT", "600"))
    # Without the variable Airflow's own default counts.
    return judge_redelivery(float(visibility or 86_400), _longest_task(deployment), queued)


def judge_redelivery(visibility: float, longest: float, queued: float) -> Finding:
    """All in seconds: how long the broker waits, and how long a task may run and may wait for a worker."""
    wanted = f"{longest / 3600:.0f} h of work and {queued / 3600:.0f} h of waiting"
    if visibility <= longest + queued:
        return failure(
            f"the broker hands a task out again after {visibility / 3600:.0f} h; it may take {wanted}",
            "Set AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT in docker-compose.yaml to more than "
            f"{longest + queued:.0f} seconds",
        )
    return ok(f"after {visibility / 3600:.0f} h, longer than {wanted}")


def _longest_task(deployment: Deployment) -> float:
    """Seconds: the longest `execution_timeout` of all tasks of all DAGs."""
    from airflow_client.client.api.dag_api import DAGApi
    from airflow_client.client.api.task_api import TaskApi

    def longest(client: Any) -> float:
        dags = DAGApi(client).get_dags(_request_timeout=TIMEOUT).dags
        tasks = [TaskApi(client).get_tasks(dag.dag_id, _request_timeout=TIMEOUT).tasks for dag in dags]
        limits = [task.execution_timeout for found in tasks for task in found if task.execution_timeout]
        return max((limit.days * 86_400.0 + limit.seconds for limit in limits), default=0.0)

    return ask(deployment, longest)


def _ask(question: str, enough: Callable[[Replies], bool]) -> Replies:
    """Celery's broadcast to all workers; asked once more before a worker that is busy counts as gone."""
    from celery import Celery  # type: ignore[import-untyped]

    replies: dict[str, Any] = {}
    with Celery(broker=os.environ["AIRFLOW__CELERY__BROKER_URL"], set_as_current=False) as app:
        for _ in range(2):
            replies |= getattr(app.control.inspect(timeout=PATIENCE), question)() or {}
            if enough(replies):
                break
    return replies
