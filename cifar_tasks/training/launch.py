"""Starting processes that train together on one machine.

They talk over the loopback interface only, and none of them outlives the process that started them.
"""

import json
import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from cifar_tasks import errors
from cifar_tasks.errors import CifarError, ConfigError, Stopped, WorkerLost

HOST = "127.0.0.1"
ERROR = "error"
"""Key of the first process's error in the store that all share."""
GRACE_SECONDS = 5
"""Between SIGTERM and SIGKILL for the processes; less than a step as a whole has."""
FAILURE_DELAY_SECONDS = 1.0
"""How long a process that fails waits: if it fails because another one ended, that one is to be reported."""
POLL_SECONDS = 0.2
"""How often this process looks whether it has received SIGTERM."""

_log = logging.getLogger(__name__)


def launch(function: Callable[..., Any], processes: int, arguments: Mapping[str, Any]) -> Any:
    """See `distributed.run`."""
    if torch.cuda.is_available() and processes > torch.cuda.device_count():
        raise ConfigError(
            f"{processes} processes cannot train on {torch.cuda.device_count()} GPUs: set CIFAR_TRAINING_PROCESSES to "
            f"{torch.cuda.device_count()} at most."
        )
    store, spawn = _store_on_loopback(), multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    receiver, sender = spawn.Pipe(duplex=False)
    workers = [
        spawn.Process(target=_run_process, args=(rank, processes, store.port, sender, function, dict(arguments)))
        for rank in range(processes)
    ]
    with _received_sigterm() as received:
        try:
            for worker in workers:
                worker.start()
            return _result(workers, receiver, store, received)
        finally:
            _end(workers)


@contextmanager
def _received_sigterm() -> Iterator[list[int]]:
    """The list is not empty once this process has received SIGTERM. It is looked at between two waits, so that no
    process is lost that is just being started."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, before)


def _result(workers: Sequence[BaseProcess], receiver: Connection, store: TCPStore, received: list[int]) -> Any:
    """What rank 0 sends, once all processes have ended well."""
    results: list[Any] = []
    while running := [worker for worker in workers if worker.exitcode is None]:
        sources = [worker.sentinel for worker in running] + ([] if results else [receiver])
        if receiver in wait(sources, POLL_SECONDS):
            results.append(receiver.recv())
        if received:
            raise Stopped("the training processes were stopped")
        for rank, worker in enumerate(workers):
            if worker.exitcode:
                raise _error_of(rank, worker.exitcode, len(workers), store)
    return results[0] if results else receiver.recv()


def _end(workers: Sequence[BaseProcess]) -> None:
    """However this process leaves, the others are gone."""
    started = [worker for worker in workers if worker.pid is not None]
    for worker in started:
        worker.terminate()
    deadline = time.monotonic() + GRACE_SECONDS
    for worker in started:
        worker.join(max(0, deadline - time.monotonic()))
        worker.kill()
        worker.join()


def _store_on_loopback() -> TCPStore:
    listening = socket.create_server((HOST, 0))
    port = listening.getsockname()[1]
    return TCPStore(HOST, port, is_master=True, wait_for_workers=False, master_listen_fd=listening.detach())


def _error_of(rank: int, exitcode: int, processes: int, store: TCPStore) -> CifarError:
    if store.check([ERROR]):
        error = json.loads(store.get(ERROR))
        kind: type[CifarError] = getattr(errors, error["type"], WorkerLost)
        return kind(error["message"])
    ended = f"by signal {signal.Signals(-exitcode).name}" if exitcode < 0 else f"with exit status {exitcode}"
    return WorkerLost(
        f"process {rank} of {processes} that train together ended {ended} without a result: see the log above."
    )


def _run_process(
    rank: int, size: int, port: int, sender: Connection, function: Callable[..., Any], arguments: Mapping[str, Any]
) -> None:
    """One of the processes, from its start to its end."""
    signal.signal(signal.SIGTERM, _stop)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    store = TCPStore(HOST, port)
    try:
        result = _in_group(store, rank, size, function, arguments)
        if rank == 0:
            sender.send(result)
    except CifarError as error:
        # Only the first error is kept: the others may fail because this process does.
        store.compare_set(ERROR, "", json.dumps({"type": type(error).__name__, "message": str(error)}))
        _leave()
    except Stopped:
        _leave()


def _leave_with_parent() -> None:
    """Not even a collective operation keeps this process once its parent is gone."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    _leave()


def _in_group(store: TCPStore, rank: int, size: int, function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    torch.set_num_threads(max(1, torch.get_num_threads() // size))
    try:
        _join_group(store, rank, size)
        result = function(**arguments)
        dist.barrier()  # NCCL requires all processes to destroy the group at the same time
        dist.destroy_process_group()
        return result
    except CifarError:
        raise
    except Exception:
        time.sleep(FAILURE_DELAY_SECONDS)
        _log.exception("process %d of %d failed", rank, size)
        _leave()


def _join_group(store: TCPStore, rank: int, size: int) -> None:
    if torch.cuda.is_available():
        os.environ.setdefault("NCCL_SOCKET_IFNAME", _loopback())
        device = torch.device("cuda", rank)
        torch.cuda.set_device(device)
        dist.init_process_group("nccl", store=store, rank=rank, world_size=size, device_id=device)
    else:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", _loopback())
        dist.init_process_group("gloo", store=store, rank=rank, world_size=size)


def _loopback() -> str:
    """Name of the network interface of 127.0.0.1: `lo` on Linux, `lo0` elsewhere."""
    return next(name for _, name in socket.if_nameindex() if name.startswith("lo"))


def _leave() -> NoReturn:
    """End without a result. Not by `sys.exit`: destroying the group would wait for others that may be stuck."""
    sys.stdout.flush()
    os._exit(1)


def _stop(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Stopped
