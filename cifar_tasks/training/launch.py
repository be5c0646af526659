"""Starting processes that train together: torchrun's own agent, for one machine and without its shell command.

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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous import (
    RendezvousInfo,
    RendezvousParameters,
    RendezvousStoreInfo,
    rendezvous_handler_registry,
)
from torch.distributed.elastic.rendezvous.static_tcp_rendezvous import StaticTCPRendezvous
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from cifar_tasks import errors
from cifar_tasks.errors import CifarError, ConfigError, Stopped, WorkerLost

HOST = "127.0.0.1"
ERROR = "error"
"""Key of the first process's error in the store that all share."""
GRACE_SECONDS = 5
"""Between SIGTERM and SIGKILL for the processes; less than a step as a whole has."""
FAILURE_DELAY_SECONDS = 1.0
"""How long a process that fails waits: if it fails because another one ended, that one is to be reported."""

_log = logging.getLogger(__name__)


def launch(function: Callable[..., Any], processes: int, arguments: Mapping[str, Any]) -> Any:
    """See `distributed.run`."""
    if torch.cuda.is_available() and processes > torch.cuda.device_count():
        raise ConfigError(
            f"{processes} processes cannot train on {torch.cuda.device_count()} GPUs: set CIFAR_TRAINING_PROCESSES to "
            f"{torch.cuda.device_count()} at most."
        )
    store = _store_on_loopback()
    rendezvous_handler_registry.register(_Rendezvous.name, _Rendezvous)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=_Rendezvous.name,
        rdzv_backend=_Rendezvous.name,
        rdzv_configs={"store": store},
        max_restarts=0,  # the task runner decides about another try
        start_method="spawn",
        local_addr=HOST,
        logs_specs=DefaultLogsSpecs(log_dir=os.devnull),
        signals_to_handle="SIGTERM",
        shutdown_timeout=GRACE_SECONDS,
    )
    try:
        with _all_processes_ended(), _quiet_agent():
            return elastic_launch(config, _run_process)(function, dict(arguments))[0]
    except SignalException:
        raise Stopped("the training processes were stopped") from None
    except ChildFailedError as error:
        raise _error_of(error, processes, store) from None


class _Rendezvous(StaticTCPRendezvous):
    """All processes are on this machine and find each other through `store`. Torch's own listens on every interface."""

    name = "loopback"

    def __init__(self, parameters: RendezvousParameters) -> None:
        self.store: TCPStore = parameters.config["store"]
        super().__init__(HOST, self.store.port, rank=0, world_size=1, run_id=parameters.run_id, timeout=60)

    def get_backend(self) -> str:
        return self.name

    def next_rendezvous(self) -> RendezvousInfo:
        return RendezvousInfo(self.store, self.rank, self.world_size, RendezvousStoreInfo(HOST, self.store.port))


def _store_on_loopback() -> TCPStore:
    listening = socket.create_server((HOST, 0))
    port = listening.getsockname()[1]
    return TCPStore(HOST, port, is_master=True, wait_for_workers=False, master_listen_fd=listening.detach())


@contextmanager
def _all_processes_ended() -> Iterator[None]:
    """Torch's agent replaces the handler of SIGTERM for good, and forgets processes that it starts at that moment."""
    before, others = signal.getsignal(signal.SIGTERM), _children()
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
        for process in _children() - others:
            process.kill()
            process.join()


def _children() -> set[BaseProcess]:
    return set(multiprocessing.active_children())


@contextmanager
def _quiet_agent() -> Iterator[None]:
    """Whatever ends the processes is raised as an error; the agent's own messages would only hide that."""
    loggers = [logging.getLogger(name) for name in ("torch.distributed.elastic", "torch.multiprocessing")]
    silence = logging.NullHandler()
    for logger in loggers:
        logger.addHandler(silence)
        logger.propagate = False
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(silence)
            logger.propagate = True


def _error_of(failed: ChildFailedError, processes: int, store: TCPStore) -> CifarError:
    if store.check([ERROR]):
        error = json.loads(store.get(ERROR))
        kind: type[CifarError] = getattr(errors, error["type"], WorkerLost)
        return kind(error["message"])
    rank, failure = failed.get_first_failure()
    signalled = failure.exitcode < 0
    ended = f"by signal {failure.signal_name()}" if signalled else f"with exit status {failure.exitcode}"
    return WorkerLost(
        f"process {rank} of {processes} that train together ended {ended} without a result: see the log above."
    )


def _run_process(function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    """One of the processes, from its start to its end."""
    signal.signal(signal.SIGTERM, _stop)
    # The kernel sends it when the parent is gone (torch asks for that): not even a collective may hold it up.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    if parent is None or not parent.is_alive():
        _leave()
    store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
    try:
        return _in_group(store, function, arguments)
    except CifarError as error:
        # Only the first error is kept: the others may fail because this process does.
        store.compare_set(ERROR, "", json.dumps({"type": type(error).__name__, "message": str(error)}))
        _leave()
    except Stopped:
        _leave()


def _in_group(store: TCPStore, function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if rank:
        logging.getLogger("cifar_tasks").setLevel(logging.WARNING)  # rank 0 logs for all
    torch.set_num_threads(max(1, torch.get_num_threads() // size))
    try:
        _join_group(store, rank, size)
        result = function(**arguments)
        dist.barrier()  # NCCL wants all processes to destroy the group at the same time
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
