import multiprocessing
from collections.abc import Iterator
from multiprocessing.process import BaseProcess

import psutil
import pytest

from cifar_tasks.deployment.stack.message_queue import MessageQueue
from tests.waiting import wait_until

FORKED = multiprocessing.get_context("fork")


@pytest.fixture
def tasks() -> Iterator[MessageQueue]:
    queue = MessageQueue()
    yield queue
    queue.close()


@pytest.fixture
def results() -> Iterator[MessageQueue]:
    queue = MessageQueue()
    yield queue
    queue.close()


@pytest.fixture
def workers(tasks: MessageQueue, results: MessageQueue) -> Iterator[list[BaseProcess]]:
    """Three processes, each of which waits for a task and gives it back."""

    def work() -> None:
        results.put("ready")
        while (task := tasks.get()) is not None:
            results.put(task)

    started = [FORKED.Process(target=work, daemon=True) for _ in range(3)]
    for worker in started:
        worker.start()
    assert [results.get() for _ in started] == ["ready"] * 3
    wait_until(lambda: all(psutil.Process(worker.pid).status() == psutil.STATUS_SLEEPING for worker in started), 10)
    yield started
    for worker in started:
        worker.kill()
        worker.join()


@pytest.mark.parametrize("killed", [(0, 1), (0, 2), (1, 2)])
def test_the_last_worker_gets_all_tasks_after_those_that_waited_beside_it_were_killed(killed, workers, tasks, results):
    for number in killed:
        workers[number].kill()
        workers[number].join()
    for task in range(20):
        tasks.put(task)
    assert [results.get() for _ in range(20)] == list(range(20))


def test_each_task_goes_to_one_worker(workers, tasks, results):
    for task in range(100):
        tasks.put(task)
    assert sorted(results.get() for _ in range(100)) == list(range(100))
    assert tasks.empty()
    assert results.empty()


def test_a_queue_with_a_message_is_not_empty(tasks):
    assert tasks.empty()
    tasks.put("task")
    assert not tasks.empty()
    assert tasks.get() == "task"
    assert tasks.empty()


def test_what_the_buffer_cannot_hold_is_refused_and_what_it_holds_arrives_whole(tasks):
    tasks.put(b"x" * 100_000)
    assert len(tasks.get()) == 100_000
    with pytest.raises(OSError, match="Message too long"):
        tasks.put(b"x" * 10_000_000)
