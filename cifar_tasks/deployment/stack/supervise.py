"""`cifar up`, `cifar status` and `cifar down`."""

import errno
import os
import socket
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from cifar_tasks.deployment.probes import ProbeError, RestartNeeded
from cifar_tasks.deployment.stack import postgres
from cifar_tasks.deployment.stack.environment import (
    HOST,
    StackOptions,
    create_secrets,
    environment,
    exists,
    read_options,
    record_options,
    started_with,
    usable,
)
from cifar_tasks.deployment.stack.services import Service, inner_ports, services
from cifar_tasks.deployment.stack.supervisord import Supervisor, launch, log_path, socket_path, sweep
from cifar_tasks.errors import ConfigError, StackError
from cifar_tasks.storage.disk import disk_errors

START_SECONDS = 180
"""Longest wait for one service; all of them together take a third of it on two cores."""
MIN_FREE = 100_000_000
"""Bytes on the disk, without which no service is started."""
MAX_SOCKET_PATH = 90
"""Bytes: the path of a Unix socket has at most 104 on macOS, and supervisord first appends its process id."""

Report = Callable[[str], None]


@dataclass(frozen=True)
class ServiceStatus:
    name: str
    state: str
    """`running`, or what supervisord calls it: `stopped`, `exited`, `starting`…"""
    pid: int | None
    url: str | None
    answering: bool
    log: Path


def up(home: Path, report: Report, without: Collection[str] = ()) -> None:
    """Start what does not run, in the order of dependencies, and return when all services work.

    `without` leaves out groups of services, such as `airflow`. Raises `StackError` with the end of the log of the
    service that failed; the next call starts the rest.
    """
    home = _prepare(home)
    with _lock(home):
        _refuse_full_disk(home)
        supervisor = Supervisor(home)
        if supervisor.pid() is None:
            _launch(home, without)
        else:
            create_secrets(home)
            _refuse_other_options(home)
        wanted = {service.name: service for service in _wanted(home, started_with(home), without)}
        _Start(supervisor, wanted, environment(home), report).run()


def _launch(home: Path, without: Collection[str]) -> None:
    """Start a supervisord, after what an earlier one left running is ended."""
    sweep(home)
    options = read_options(home)
    _refuse_taken_ports(_wanted(home, options, without))
    create_secrets(home)  # from here on there is a stack, and commands use it in place of other servers
    record_options(home, options)
    postgres.initialise(home)
    launch(home, services(home, options), environment(home))


def _wanted(home: Path, options: StackOptions, without: Collection[str]) -> list[Service]:
    return [service for service in services(home, options) if service.group not in without]


@dataclass
class _Start:
    """One call of `up`."""

    supervisor: Supervisor
    services: dict[str, Service]
    """Those that it waits for."""
    variables: dict[str, str]
    report: Report
    started: set[str] = field(default_factory=set)
    """Those that it has started itself."""

    def run(self) -> None:
        began = time.monotonic()
        graph = TopologicalSorter({name: service.needs for name, service in self.services.items()})
        graph.prepare()
        awaited: dict[str, float] = {}
        while graph.is_active():
            awaited |= dict.fromkeys(graph.get_ready(), time.monotonic() + START_SECONDS)
            for name, deadline in list(awaited.items()):
                if (reason := self._why_not_ready(self.services[name])) is None:
                    graph.done(name)
                    del awaited[name]
                    if name in self.started:
                        self.report(f"{name} ready after {time.monotonic() - began:.0f} s")
                elif time.monotonic() > deadline:
                    raise self._failure(name, f"is not ready after {START_SECONDS} s: {reason}")
            if awaited:
                time.sleep(0.2)

    def _why_not_ready(self, service: Service) -> str | None:
        processes = self.supervisor.processes()
        if service.name not in processes:
            raise StackError(
                f"The running supervisord does not know {service.name}: it was stopped, or started by another version. "
                "Restart the stack: `cifar down`, then `cifar up`."
            )
        state = processes[service.name]["statename"]
        if service.probe is None and state == "EXITED" and processes[service.name]["exitstatus"] == 0:
            return None
        if state != "RUNNING":
            if service.name in self.started:
                raise self._failure(service.name, f"stopped while it was starting ({state.lower()})")
            self._restart(service)
            return "starts"
        # A heartbeat from before the start of the service, or of what it needs, does not count.
        since = max(processes[name]["start"] for name in (service.name, *service.needs))
        problem = _problem(service, self.variables, since)
        if isinstance(problem, RestartNeeded) and service.name not in self.started:
            self.report(f"{service.name} {problem}: it is started again")
            self.supervisor.stop(service)
            self._restart(service)
        return str(problem) if problem else None

    def _restart(self, service: Service) -> None:
        sweep(self.supervisor.home, service.name)
        _refuse_taken_ports([service])
        self.supervisor.start(service)
        self.started.add(service.name)

    def _failure(self, name: str, what: str) -> StackError:
        log = log_path(self.supervisor.home, name)
        lines = log.read_text(errors="replace").splitlines()[-8:] if log.exists() else []
        return StackError("\n".join([f"{name} {what}. Log: {log}", *(f"  {line}" for line in lines)]))


def _problem(service: Service, variables: dict[str, str], since: float) -> ProbeError | None:
    """What its probe finds, None if the service works."""
    if service.probe is None:
        return ProbeError("is not done")
    try:
        service.probe(variables, since)
    except ProbeError as error:
        return error
    return None


def status(home: Path) -> list[ServiceStatus]:
    """The state of each service; nothing when no stack was ever started in `home`."""
    home = _own(home)
    if not exists(home):
        return []
    processes, variables = Supervisor(home).processes(), environment(home)
    found = []
    for service in services(home, started_with(home)):
        if service.probe is None:
            continue
        process = processes.get(service.name, {"statename": "STOPPED", "pid": 0, "start": 0})
        running = process["statename"] == "RUNNING"
        answering = running and _problem(service, variables, process["start"]) is None
        state, pid = process["statename"].lower(), process["pid"] or None
        found.append(ServiceStatus(service.name, state, pid, service.url, answering, log_path(home, service.name)))
    return found


def was_left_out(home: Path, group: str) -> bool:
    """Whether the stack that runs was started without this group of services, such as `airflow`."""
    processes = Supervisor(_own(home)).processes().values()
    starts = [process["start"] for process in processes if process["group"] == group]
    return bool(starts) and not any(starts)


def down(home: Path) -> bool:
    """Stop every service and all processes that it left; data stay. False when nothing was running."""
    home = _own(home)
    if not exists(home):
        return sweep(home) > 0  # somebody may have deleted the folder of a stack that runs
    with _lock(home):
        supervisor = Supervisor(home)
        ran = supervisor.pid() is not None
        supervisor.shutdown()
        left = sweep(home)
        if not ran and not left:
            return False  # sockets on these ports are of another stack
        for port in inner_ports(started_with(home)):
            for socket_file in Path("/tmp").glob(f"seaweedfs-*-grpc-{port}.sock"):  # noqa: S108 – SeaweedFS's choice
                with suppress(PermissionError):  # of another user
                    socket_file.unlink(missing_ok=True)
        return True


def _own(home: Path) -> Path:
    home = home.resolve()
    with usable(home):
        foreign = home.exists() and home.stat().st_uid != os.geteuid()
    if foreign:
        raise StackError(f"{home} belongs to another user. Run as its owner, or set CIFAR_HOME to a folder of yours.")
    return home


def _prepare(home: Path) -> Path:
    home = _own(home)
    length = len(os.fsencode(socket_path(home)))
    if length > MAX_SOCKET_PATH:
        raise ConfigError(
            f"The path of {home} is too long for a Unix socket ({length} bytes, at most {MAX_SOCKET_PATH}). "
            "Set CIFAR_HOME to a folder with a shorter path."
        )
    with disk_errors(home, "CIFAR_HOME"):
        if not home.exists():
            home.mkdir(parents=True, mode=0o700)
        for folder in ("airflow", "logs", "postgres", "s3"):
            (home / folder).mkdir(mode=0o700, exist_ok=True)
    return home


@contextmanager
def _lock(home: Path) -> Iterator[None]:
    """One `up` or `down` at a time."""
    try:
        with FileLock(home / "lock", timeout=START_SECONDS, mode=0o600):
            yield
    except Timeout:
        raise StackError(f"Another `cifar up` or `cifar down` is busy in {home}. Try again when it is done.") from None


def _refuse_full_disk(home: Path) -> None:
    free = psutil.disk_usage(str(home)).free
    if free < MIN_FREE:
        raise StackError(
            f"The disk of {home} is full ({free / 1e6:.0f} MB free). Free at least {MIN_FREE / 1e6:.0f} MB, "
            "then run `cifar up` again."
        )


def _refuse_other_options(home: Path) -> None:
    running = started_with(home).model_dump()
    for name, value in read_options(home).model_dump().items():
        if value != running[name]:
            raise StackError(
                f"The stack runs with CIFAR_{name.upper()}={running[name]}, not {value}. "
                "To change it: `cifar down`, then `cifar up`."
            )


def _refuse_taken_ports(wanted: Collection[Service]) -> None:
    for service in wanted:
        for variable, ports in service.ports.items():
            for port in ports:
                if _is_taken(port):
                    raise StackError(
                        f"Port {port} for {service.name} is taken{_by_whom(port)}. "
                        f"Stop that program, or set {variable} to a free port."
                    )


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return True
            raise StackError(f"Port {port} cannot be used: {error.strerror}.") from None
    return False


def _by_whom(port: int) -> str:
    """` by NAME (process PID)`, where this user may know."""
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.laddr.port == port and connection.status == psutil.CONN_LISTEN and connection.pid:
                return f" by {psutil.Process(connection.pid).name()} (process {connection.pid})"
    except psutil.Error:
        return ""
    return ""
