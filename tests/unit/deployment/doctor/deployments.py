"""Deployments for the checks, and servers that answer what a check asks."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from cifar_tasks.deployment.doctor import CHECKS
from cifar_tasks.deployment.doctor.check_runner import Deployment, Finding, run_checks
from cifar_tasks.settings import Settings
from tests.unit.data.server import Site, serving

COMPOSE = Deployment(Settings(gpu_slots=2), embedded=False)
EMBEDDED = Deployment(Settings(home=Path("/srv/cifar"), gpu_slots=2), embedded=True)


def find(name: str, deployment: Deployment) -> Finding:
    """What one check finds, without those that it needs."""
    return run_checks(deployment, [check for check in CHECKS if check.name == name])[name]


@contextmanager
def answering(content: bytes, *failures: int) -> Iterator[str]:
    """The address of a server that answers every path with `content`, after these status codes."""
    with serving(Site(content, "application/json", failures=list(failures))) as site:
        yield site.url.rpartition("/")[0]


class Server(BaseHTTPRequestHandler):
    """Answers GET and POST by `answer`."""

    def do_GET(self) -> None:
        self.answer()

    do_POST = do_GET  # noqa: N815

    def answer(self) -> None:
        raise NotImplementedError

    def send_json(self, content: object) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    def log_message(self, *_words: object) -> None:
        """A test says itself what it saw."""


@contextmanager
def handled_by(handler: type[Server], host: str = "127.0.0.1") -> Iterator[str]:
    """The address of a server."""
    with ThreadingHTTPServer((host, 0), handler) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://{host}:{server.server_port}"
        server.shutdown()
