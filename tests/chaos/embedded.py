"""Faults in every process of an embedded stack: SIGKILL, SIGSTOP for a while, a full disk (as root)."""

import os
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from benchmarks.temporary_stack import free_ports, new_home
from cifar_tasks.deployment import stack
from cifar_tasks.deployment.stack.environment import record_options
from cifar_tasks.deployment.stack.supervisord import marked
from cifar_tasks.storage.s3 import S3Store
from tests.chaos.runs import STEP

DISK = "5g"
"""Size of the file system in memory: ten DAG runs need a little more than 3 GB."""


class EmbeddedStack:
    def __init__(self, home: Path, may_fill_disk: bool) -> None:
        self.home, self.may_fill_disk = home, may_fill_disk
        self.up()
        stack.use(home)
        self.airflow_url = stack.environment(home)["CIFAR_AIRFLOW_URL"]
        self.airflow_password = stack.airflow_password(home)

    def up(self) -> None:
        stack.up(self.home, report=lambda line: None)

    def ended(self) -> list[str]:
        return [service.name for service in stack.status(self.home) if not service.answering]

    def fault(self, chance: random.Random) -> str | None:
        kind = chance.choices(["SIGKILL", "SIGSTOP", "disk full"], [6, 3, 1 if self.may_fill_disk else 0])[0]
        if kind == "disk full":
            self.fill_disk(chance)
            return kind
        process = chance.choice(marked(self.home))
        with suppress(psutil.NoSuchProcess):
            environment = process.environ()
            name = "step" if STEP in process.cmdline() else environment.get("SUPERVISOR_PROCESS_NAME", "supervisord")
            if kind == "SIGKILL":
                process.kill()
            else:
                process.suspend()
                time.sleep(chance.uniform(3, 15))
                process.resume()
            return f"{kind} {name}"
        return None

    def fill_disk(self, chance: random.Random) -> None:
        ballast = self.home / "ballast"
        with suppress(OSError), ballast.open("wb") as file:
            while True:
                file.write(bytes(2**22))
        time.sleep(chance.uniform(3, 10))
        ballast.unlink()

    def steps(self) -> list[str]:
        return [" ".join(process.cmdline()) for process in marked(self.home) if STEP in process.cmdline()]

    def keys(self, bucket: str, prefix: str) -> Iterator[str]:
        return S3Store(bucket).keys(prefix)


@contextmanager
def embedded_stack() -> Iterator[EmbeddedStack]:
    """It runs, and as root on a small disk of its own. No process may be left at the end."""
    os.environ["OMP_NUM_THREADS"] = "1"  # the last digits of a training depend on it
    home = new_home()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK},mode=700", "tmpfs", str(home)]
    mounted = os.geteuid() == 0 and subprocess.run(mount).returncode == 0
    record_options(home, free_ports())
    try:
        yield EmbeddedStack(home, mounted)
    finally:
        stack.down(home)
        left = marked(home)
        if mounted:
            subprocess.run(["umount", "--lazy", home], check=True)
        shutil.rmtree(home)
        if left:
            raise SystemExit(f"`cifar down` left processes: {left}")
