"""What `tests/unit/steps/test_process.py` runs in processes of their own."""

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cifar_tasks.errors import ConfigError, StorageError
from cifar_tasks.steps.payloads import Payload


def double(number: int) -> dict[str, Any]:
    sys.stdout.write("doubling\n")
    return {
        "number": 2 * number,
        "pid": os.getpid(),
        "group": os.getpgid(0),
        "waiting": os.environ["OMP_WAIT_POLICY"],
        "threads": os.environ["OMP_NUM_THREADS"],
    }


def write_latin_1() -> str:
    os.write(1, b"libfoo: caf\xe9.jpg\n")
    return "done"


class Numbers(Payload):
    """A value between steps of a test."""

    label: str
    values: list[int]


def add(numbers: Numbers, factor: float = 1) -> Numbers:
    return Numbers(label=numbers.label, values=[int(sum(numbers.values) * factor)])


def promise_text() -> str:
    return 7  # type: ignore[return-value]


def repeat(letter: str, times: int) -> str:
    return letter * times


def fail(kind: str) -> None:
    raise {"config": ConfigError, "storage": StorageError, "bug": ZeroDivisionError}[kind]("what is wrong")


def name_what_is_wrong(name: str) -> None:
    """In the log and in an error of two lines."""
    logging.getLogger("cifar_tasks.test").warning("warned of %s\nand went on", name)
    raise ConfigError(f"cannot use {name}\nrename it")


def die(number: int) -> None:
    os.kill(os.getpid(), number)


def leave(code: int) -> None:
    os._exit(code)


def wait_with_child(note: str) -> None:
    """Write its process ids, then wait; on being told to stop, write that it cleaned up."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
    draft = Path(note + ".draft")
    draft.write_text(f"{os.getpid()} {child.pid}")
    draft.rename(note)
    try:
        time.sleep(300)
    finally:
        Path(note + ".cleaned").touch()


class Opened:
    """Holds a temporary folder as long as it is there, as an archive that was fetched does."""

    def __init__(self) -> None:
        self.folder = TemporaryDirectory(prefix="cifar-")

    def read(self, note: str) -> None:
        draft = Path(note + ".draft")
        draft.write_text(self.folder.name)
        draft.rename(note)
        time.sleep(300)


def read_archive(note: str) -> None:
    Opened().read(note)


def leave_child() -> int:
    """Returns while a process that it started still runs."""
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"]).pid


def ignore_sigterm(note: str) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    draft = Path(note + ".draft")
    draft.write_text(str(os.getpid()))
    draft.rename(note)
    print("ignoring", flush=True)  # noqa: T201
    time.sleep(300)


def write_later(note: str) -> None:
    time.sleep(1)
    Path(note).touch()


def count(text: str) -> int:
    return len(text)


def leave_a_child(seconds: int) -> str:
    """End while another process of the step holds its output open."""
    subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({seconds})"])
    return "done"
