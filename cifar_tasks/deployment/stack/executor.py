"""Airflow's LocalExecutor, any process of which may be killed.

Airflow's own workers (3.3.2) wait for tasks under one lock. An idle worker that is killed keeps it, and no task starts
any more.
"""

import ctypes
import multiprocessing

from airflow.executors import local_executor

from cifar_tasks.deployment.stack.message_queue import MessageQueue


class LocalExecutor(local_executor.LocalExecutor):
    """Airflow's, with queues that have no lock."""

    def start(self) -> None:
        self.activity_queue = MessageQueue()  # type: ignore[assignment]
        self.result_queue = MessageQueue()  # type: ignore[assignment]
        self.workers = {}
        self._unread_messages = multiprocessing.Value(ctypes.c_uint)
        self._spawn_workers_with_gc_freeze(self.parallelism)  # type: ignore[no-untyped-call]
