"""Optuna's own dashboard on the studies."""

import errno
import signal
from collections.abc import Callable

from cifar_tasks.errors import ConfigError
from cifar_tasks.tuning.study import study_storage

HOST = "127.0.0.1"


def serve(port: int, report: Callable[[str], None]) -> None:
    """Show the studies until the process is interrupted; `report` gets the address.

    Raises `ConfigError` if the dashboard is not installed or the port is in use.
    """
    try:
        import optuna_dashboard
    except ImportError:
        raise ConfigError("Optuna's dashboard is not installed: pip install optuna-dashboard") from None
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # its server swallows an interrupt in the middle of a request
    report(f"http://{HOST}:{port}/dashboard")
    try:
        optuna_dashboard.run_server(study_storage(), host=HOST, port=port)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise ConfigError(f"port {port} is in use: choose another with --port.") from None
