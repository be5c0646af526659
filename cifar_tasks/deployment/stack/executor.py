"""Airflow's LocalExecutor, any process of which may be killed.

Airflow's own (3.3.2) does not survive that. Its workers wait for tasks under one lock: an idle worker that is killed
keeps it, and no task starts any more. And a task stays queued if its worker is killed before the task has begun.
"""

import ctypes
import multiprocessing
import os
from typing import Any

from airflow.executors import local_executor
from airflow.utils.state import TaskInstanceState

from cifar_tasks.deployment.stack.message_queue import MessageQueue


class TaskQueue(MessageQueue):
    """Its `taken` tells which worker has taken a task."""

    def __init__(self) -> None:
        super().__init__()
        self.taken = MessageQueue()

    def get(self) -> Any:
        workload = super().get()
        if workload is not None:  # which tells the worker to end
            self.taken.put((workload.key, os.getpid()))
        return workload

    def close(self) -> None:
        super().close()
        self.taken.close()


class LocalExecutor(local_executor.LocalExecutor):
    """Airflow's, with queues that have no lock. A task whose worker has died has failed, so Airflow tries it again."""

    activity_queue: TaskQueue  # type: ignore[assignment]
    worker_of: dict[Any, int]
    """Key of a task that was taken and has no result → process id of its worker."""

    def start(self) -> None:
        self.activity_queue = TaskQueue()
        self.result_queue = MessageQueue()  # type: ignore[assignment]
        self.workers, self.worker_of = {}, {}
        self._unread_messages = multiprocessing.Value(ctypes.c_uint)
        self._spawn_workers_with_gc_freeze(self.parallelism)  # type: ignore[no-untyped-call]

    def sync(self) -> None:
        alive = {pid for pid, worker in self.workers.items() if worker.is_alive()}
        while not self.activity_queue.taken.empty():
            key, pid = self.activity_queue.taken.get()
            self.worker_of[key] = pid
        super().sync()  # reads all results of those that were dead already, and starts others
        alive |= self.workers.keys()
        for key in [key for key, pid in self.worker_of.items() if pid not in alive]:
            self.log.warning("the worker of %s has died", key)
            self.fail(key)

    def change_state(self, key: Any, state: Any, info: Any = None, remove_running: bool = True) -> None:
        if state != TaskInstanceState.RUNNING:
            self.worker_of.pop(key, None)
        super().change_state(key, state, info, remove_running)
