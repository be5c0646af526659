"""DAG files as a process reads them that has imported Airflow and nothing of ours."""

import io
import multiprocessing
import os
import sys
import traceback
from contextlib import redirect_stdout
from functools import cache
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext

from cifar_tasks.settings import PROJECT

DAGS = PROJECT / "dags"


def parse_elsewhere(program: str, **variables: str) -> str:
    """The last line that a program prints, which may import DAG files; without any stack around."""
    receiver, sender = _server().Pipe(duplex=False)
    process = _server().Process(target=_run, args=(program, _environment() | variables, sender))
    process.start()
    sender.close()
    printed, error = receiver.recv()
    process.join()
    assert not error, error
    return str(printed.splitlines()[-1])


@cache
def _server() -> ForkServerContext:
    """Forks processes that have imported Airflow, which takes seconds."""
    context, own = multiprocessing.get_context("forkserver"), dict(os.environ)
    context.set_forkserver_preload(["airflow.sdk"])
    os.environ.clear()
    os.environ.update(_environment())
    try:
        forkserver.ensure_running()
    finally:
        os.environ.update(own)
    return context


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "CIFAR", "AWS"))}


def _run(program: str, environment: dict[str, str], sender: Connection) -> None:
    os.environ.clear()
    os.environ.update(environment)
    sys.path.insert(0, str(DAGS))
    printed, error = io.StringIO(), ""
    try:
        with redirect_stdout(printed):
            exec(f"import json, sys\n{program}", {"__name__": "__main__"})  # noqa: S102
    except Exception:
        error = traceback.format_exc()
    sender.send((printed.getvalue(), error))
