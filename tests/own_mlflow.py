"""An MLflow server that a test stops and starts again, on the database and the files of the backend."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.temporary_stack import free_port
from cifar_tasks.deployment import probes
from cifar_tasks.deployment.stack.environment import HOST
from tests.waiting import wait_until

START_SECONDS = 120


class OwnMlflow:
    """This process must be a client of the backend."""

    def __init__(self, log: Path) -> None:
        self.log, self.port = log, free_port()
        self.address = f"http://{HOST}:{self.port}"
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(self.port), "--workers", "1"]
        variables = {**os.environ, "MLFLOW_SERVER_ALLOWED_HOSTS": f"{HOST}:{self.port}"}
        with self.log.open("a") as log:
            self.process = subprocess.Popen(command, env=variables, stdout=log, stderr=log, start_new_session=True)
        wait_until(self._answers, START_SECONDS)

    def kill(self) -> None:
        """SIGKILL for the server and its workers."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def _answers(self) -> bool:
        try:
            probes.mlflow(self.address)
        except probes.ProbeError:
            assert self.process.poll() is None, self.log.read_text()
            return False
        return True


@contextmanager
def own_mlflow(log: Path) -> Iterator[OwnMlflow]:
    server = OwnMlflow(log)
    try:
        yield server
    finally:
        server.kill()
