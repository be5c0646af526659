"""The real services for a benchmark: a stack of its own, gone afterwards."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from cifar_tasks.deployment import stack
from cifar_tasks.deployment.stack.environment import overlay


@contextmanager
def own_stack() -> Iterator[None]:
    """Storage and MLflow on free ports in a temporary folder, with this process as their client."""
    from tests.conftest import stack_home

    before = dict(os.environ)
    for name in [name for name in os.environ if name.startswith(("CIFAR_", "WANDB_"))]:
        del os.environ[name]
    try:
        with stack_home() as home:
            stack.up(home, report=_say, without=("airflow",))
            wanted = overlay(os.environ, stack.environment(home))
            os.environ.clear()
            os.environ.update(wanted)
            yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _say(line: str) -> None:
    print(f"{time.strftime('%X')} {line}", flush=True)
