"""The real services for a benchmark, removed afterwards."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from cifar_tasks.deployment import stack
from cifar_tasks.deployment.stack.temporary import temporary_home


@contextmanager
def own_stack() -> Iterator[None]:
    """Storage and MLflow on free ports in a temporary folder, with this process as their client."""
    with patch.dict(os.environ):
        for name in [name for name in os.environ if name.startswith(("CIFAR_", "MLFLOW_", "WANDB_"))]:
            del os.environ[name]
        with temporary_home() as home:
            stack.up(home, report=lambda line: print(f"{time.strftime('%X')} {line}", flush=True), without=("airflow",))
            stack.use(home)
            yield
