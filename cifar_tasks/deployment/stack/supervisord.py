"""supervisord, which runs the embedded stack: its configuration, its remote control, and processes that it left."""

import os
import pwd
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping
from configparser import RawConfigParser
from contextlib import suppress
from io import StringIO
from pathlib import Path
from typing import Any
from xmlrpc.client import Fault, ServerProxy

import psutil

from cifar_tasks.deployment.stack.environment import overlay, write_private
from cifar_tasks.deployment.stack.services import Service
from cifar_tasks.errors import StackError
from cifar_tasks.settings import PROJECT

MARKER = "CIFAR_STACK"
"""All processes of the stack, children included, have this variable, with the home as its value. Clients do not."""
STOP_SECONDS = 20
"""From the stop signal of a service until it is killed."""


class Supervisor:
    """Remote control of the supervisord of one home, over a Unix socket that only its owner can open."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def pid(self) -> int | None:
        """None if no supervisord answers."""
        try:
            return int(self._call("getPID"))
        except OSError:
            return None

    def processes(self) -> dict[str, dict[str, Any]]:
        """supervisord's state of each process, by name; empty if it does not run."""
        try:
            return {info["name"]: info for info in self._call("getAllProcessInfo")}
        except OSError:
            return {}

    def start(self, service: Service) -> None:
        try:
            self._call("startProcess", f"{service.group}:{service.name}", False)
        except Fault as fault:
            raise StackError(
                f"{service.name} could not be started: {fault.faultString}. Log: {log_path(self.home, service.name)}"
            ) from None

    def stop(self, service: Service) -> None:
        """Returns when it has ended."""
        self._call("stopProcess", f"{service.group}:{service.name}")

    def shutdown(self) -> None:
        """Stop every service, the last started first, then supervisord itself."""
        pid = self.pid()
        if pid is None:
            return
        self._call("shutdown")
        try:
            psutil.Process(pid).wait(timeout=5 * STOP_SECONDS)
        except psutil.NoSuchProcess:
            return
        except psutil.TimeoutExpired:
            raise StackError(
                f"supervisord (process {pid}) does not stop. Log: {log_path(self.home, 'stack')}"
            ) from None

    def _call(self, method: str, *arguments: object) -> Any:
        """A new connection for every call: after a refusal the transport cannot use its connection again."""
        from supervisor.xmlrpc import Faults, SupervisorTransport

        transport = SupervisorTransport(serverurl=f"unix://{socket_path(self.home)}")
        with ServerProxy("http://127.0.0.1", transport=transport) as proxy:  # the address is not used
            try:
                return getattr(proxy.supervisor, method)(*arguments)
            except Fault as fault:
                if fault.faultCode == Faults.SHUTDOWN_STATE:
                    raise StackError("The stack is being stopped. Try again in half a minute.") from None
                raise


def launch(home: Path, services: Iterable[Service], environment: Mapping[str, str]) -> None:
    """Start a supervisord that runs nothing yet. Secrets reach the services by inheritance, not by its file."""
    config = home / "supervisord.conf"
    write_private(config, configuration(home, services))
    inherited = overlay(os.environ, environment) | {
        MARKER: str(home),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        "PYTHONUNBUFFERED": "1",
        "SPT_NOENV": "1",  # setproctitle would overwrite the place where the marker is read
    }
    command = [sys.executable, "-m", "supervisor.supervisord", "-c", str(config)]
    done = subprocess.run(command, env=inherited, cwd=home, umask=0o077, text=True, capture_output=True)
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise StackError(f"supervisord could not be started: {' '.join(last)}. Log: {log_path(home, 'stack')}")


def configuration(home: Path, services: Iterable[Service]) -> str:
    """The text of `supervisord.conf`. Nothing restarts by itself, so that `cifar status` shows a service that died."""
    config = RawConfigParser()
    config["unix_http_server"] = {"file": str(socket_path(home)), "chmod": "0700"}
    config["rpcinterface:supervisor"] = {
        "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
    }
    config["supervisord"] = {
        "logfile": str(log_path(home, "stack")),
        "logfile_maxbytes": "5MB",
        "pidfile": str(home / "supervisord.pid"),
        "childlogdir": str(home / "logs"),
        "umask": "077",
    }
    if os.geteuid() == 0:
        config["supervisord"]["user"] = pwd.getpwuid(0).pw_name
    members: dict[str, list[str]] = {}
    for service in services:
        members.setdefault(service.group, []).append(service.name)
        config[f"program:{service.name}"] = _program(home, service)
    for priority, (group, names) in enumerate(members.items()):
        config[f"group:{group}"] = {"programs": ",".join(names), "priority": str(priority)}
    text = StringIO()
    config.write(text)
    return text.getvalue().replace("%", "%%")


def _program(home: Path, service: Service) -> dict[str, str]:
    program = {
        "command": shlex.join(service.command),
        "directory": str(PROJECT),
        "autostart": "false",
        "autorestart": "false",
        "startsecs": "0",
        "stopsignal": service.stop_signal,
        "stopasgroup": str(service.signal_group).lower(),
        "killasgroup": "true",
        "stopwaitsecs": str(STOP_SECONDS),
        "redirect_stderr": "true",
        "stdout_logfile": str(log_path(home, service.name)),
        "stdout_logfile_maxbytes": "10MB",
        "stdout_logfile_backups": "1",
        "environment": ",".join(f'{name}="{value}"' for name, value in service.environment.items()),
    }
    return program | ({"user": service.user, "directory": "/"} if service.user else {})


def sweep(home: Path, service: str | None = None) -> int:
    """End the processes that are left of a service, or of the whole stack. Returns their number."""
    left = [process for process in marked(home, service) if process.pid != os.getpid()]
    alive = left
    for signal, seconds in (("terminate", STOP_SECONDS / 2), ("kill", 5)):
        for process in alive:
            with suppress(psutil.NoSuchProcess):
                getattr(process, signal)()
        _, alive = psutil.wait_procs(alive, timeout=seconds)
    return len(left)


def marked(home: Path, service: str | None = None) -> list[psutil.Process]:
    """Processes of the stack in `home`, found by the variable that they inherited."""
    found = []
    for process in psutil.process_iter():
        try:
            environment = process.environ()
        except (psutil.Error, OSError):
            continue  # ended, or another user's
        if environment.get(MARKER) == str(home) and service in (None, environment.get("SUPERVISOR_PROCESS_NAME")):
            found.append(process)
    return found


def socket_path(home: Path) -> Path:
    return home / "supervisor.sock"


def log_path(home: Path, name: str) -> Path:
    return home / "logs" / f"{name}.log"
