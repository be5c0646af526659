"""Optuna's own dashboard on the studies."""

import errno
import signal
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from cifar_tasks.errors import ConfigError
from cifar_tasks.tuning.study import database_errors, study_storage

HOST = "127.0.0.1"
Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
"""A WSGI application."""


def serve(port: int, report: Callable[[str], None]) -> None:
    """Show the studies until the process is interrupted; `report` gets the address.

    Raises `ConfigError` if it is not installed or the port cannot be used, `StorageError` if the database is away.
    """
    try:
        import optuna_dashboard
    except ImportError:
        raise ConfigError("Optuna's dashboard is not installed: pip install optuna-dashboard") from None
    with database_errors():
        application = for_this_machine(optuna_dashboard.wsgi(study_storage()), port)
    try:
        server = make_server(HOST, port, application, server_class=_Server, handler_class=_QuietHandler)
    except OSError as error:
        reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
        raise ConfigError(f"port {port} {reason}: choose another with --port.") from None
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # an interrupt in the middle of a request would be swallowed
    report(f"http://{HOST}:{port}/dashboard")
    with server:
        server.serve_forever()


def for_this_machine(application: Application, port: int) -> Application:
    """Refuse requests under another host name: a web page can point a name of its own at 127.0.0.1 (DNS rebinding)."""
    accepted = {f"{host}:{port}" for host in (HOST, "localhost")}

    def checked(request: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if request.get("HTTP_HOST", "").lower() in accepted:
            return application(request, start_response)
        start_response("403 Forbidden", [("Content-Type", "text/plain")])
        return [f"Open http://{HOST}:{port}/dashboard\n".encode()]

    return checked


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 – the base class names it so
        """Nothing: each page polls every few seconds."""
