"""A stack for tests and benchmarks: in a temporary folder, on free ports, removed afterwards."""

import os
import random
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from cifar_tasks.deployment import stack
from cifar_tasks.deployment.stack.environment import HOST, S3_INNER_PORTS, StackOptions, record_options
from cifar_tasks.deployment.stack.supervise import down
from cifar_tasks.deployment.stack.supervisord import marked
from cifar_tasks.errors import StackError


@contextmanager
def own_stack() -> Iterator[None]:
    """Storage and MLflow on free ports in a temporary folder, with this process as their client."""
    with _started(without=("airflow",)):
        yield


@contextmanager
def whole_stack() -> Iterator[Path]:
    """The same with Airflow; its folder."""
    with _started() as home:
        yield home


@contextmanager
def _started(without: tuple[str, ...] = ()) -> Iterator[Path]:
    with patch.dict(os.environ):
        for name in [name for name in os.environ if name.startswith(("CIFAR_", "MLFLOW_", "WANDB_"))]:
            del os.environ[name]
        with temporary_home() as home:
            stack.up(home, report=lambda line: print(f"{time.strftime('%X')} {line}", flush=True), without=without)
            stack.use(home)
            yield home


@contextmanager
def temporary_home() -> Iterator[Path]:
    home = new_home()
    try:
        yield home
    finally:
        remove_home(home)


def new_home() -> Path:
    """A folder with a short path, for Unix sockets, and with options that name free ports."""
    home = Path(tempfile.mkdtemp(prefix="cifar-")).resolve()
    record_options(home, free_ports())
    return home


def remove_home(home: Path) -> None:
    """Stop the stack and delete its folder; `StackError` if a process is left."""
    down(home)
    left = marked(home)
    shutil.rmtree(home)
    if left:
        raise StackError(f"`cifar down` left processes: {left}")


def free_ports() -> StackOptions:
    """Consecutive ports below those that the system hands out itself."""
    names = [name for name in StackOptions.model_fields if name.endswith("_port") and name != "s3_inner_port"]
    while True:
        first = random.randrange(20000, 32000)  # noqa: S311 – not a secret
        if all(is_free(port) for port in range(first, first + len(names) + S3_INNER_PORTS)):
            ports = {name: first + number for number, name in enumerate([*names, "s3_inner_port"])}
            return StackOptions(**ports)


def free_port() -> int:
    return free_ports().airflow_port


def is_free(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex((HOST, port)) != 0
