"""A step in a process of its own: `run_step("package.module:function", …)` starts it with `python -m` and this module.

The child has its own process group, an environment tuned for its work, and holds memory and GPU only while it works.
Its standard input is a lifeline: when the parent dies, however it dies, the pipe closes and the child stops.
"""

import inspect
import json
import logging
import os
import pkgutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import IO, Any

from pydantic import ConfigDict, TypeAdapter, ValidationError, create_model

from cifar_tasks import errors
from cifar_tasks.errors import CifarError, PayloadError, Stopped, WorkerLost, problems
from cifar_tasks.evaluation.names import printable_lines
from cifar_tasks.settings import Settings, training_threads

STEP_ENV = {
    # Large tensors are freed and allocated again in every step; keeping the memory instead of returning it to the
    # kernel took CNN training from 97 to 119 images/s (page faults gone; 2 CPU cores, glibc).
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    # Waiting threads sleep instead of spinning: two trainings at once on 2 cores went from 51 and 29 to 78 and 106
    # images/s (CNN, ResNet50; n = 2); the CNN alone lost nothing, ResNet50 alone about a fifth.
    "OMP_WAIT_POLICY": "PASSIVE",
}

GRACE_SECONDS = 10.0
"""Between asking a step to stop and killing it: time to mark its run and close its files."""

_log = logging.getLogger(__name__)


def run_step(
    step: str, on_line: Callable[[str], None] | None = None, trainings: int | None = None, **arguments: Any
) -> Any:
    """Call the function `step`, written `package.module:function`, in a process of its own.

    It has the threads of one of `trainings` steps that run at a time (`training_threads`).

    Arguments and result are JSON values; both are validated by the function's annotations. What the step prints reaches
    `on_line` (the log, if none) line by line. A `CifarError` there is raised here again; `WorkerLost` if the process
    ends without a result; `Stopped` if this process receives SIGTERM meanwhile.
    """
    emit = on_line or _log.info
    # A file, because a result that is larger than a pipe's buffer would wait for a reader.
    with (
        tempfile.TemporaryFile() as result,
        _child(step, result.fileno(), training_threads(Settings(), trainings)) as process,
        _pass_on_sigterm(process) as sigterm_received,
    ):
        _send(process.stdin, json.dumps(arguments))
        for line in process.stdout or ():
            emit(line.rstrip("\n"))
        process.wait()
        if sigterm_received:
            raise Stopped(f"{step} was stopped")
        result.seek(0)
        return _result(step, process.returncode, result.read())


def restart_in_step_environment() -> None:
    """Begin this command again in the environment of a step, unless it has it: libraries read it when they start."""
    if not STEP_ENV.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | STEP_ENV)  # noqa: S606


def start_step(step: str, **arguments: Any) -> None:
    """Start a step that may outlive this process. Nobody waits for its result."""
    with tempfile.TemporaryFile("w+") as given:
        given.write(json.dumps(arguments) + "\n")
        given.seek(0)
        subprocess.Popen(
            [sys.executable, "-m", "cifar_tasks.steps.process", step],
            stdin=given,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )


@contextmanager
def _child(step: str, result_fd: int, threads: int) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "cifar_tasks.steps.process", step, str(result_fd)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="backslashreplace",  # native libraries write bytes of any encoding
        env={"OMP_NUM_THREADS": str(threads), **os.environ, **STEP_ENV, "PYTHONUNBUFFERED": "1"},
        pass_fds=[result_fd],
        start_new_session=True,
    )
    threading.Thread(target=_close_output_at_the_end, args=(process,), daemon=True).start()
    try:
        yield process
    finally:
        _end(process)


def _close_output_at_the_end(process: subprocess.Popen[str]) -> None:
    """What the child has started would keep its output open, and the parent waiting, after the child has ended."""
    process.wait()
    _signal_group(process.pid, signal.SIGKILL)


def _send(pipe: IO[str] | None, line: str) -> None:
    try:
        assert pipe is not None  # noqa: S101  (Popen was asked for a pipe)
        pipe.write(line + "\n")
        pipe.flush()
    except BrokenPipeError:
        _log.warning("the step ended before it read its arguments")


def _end(process: subprocess.Popen[str]) -> None:
    """However the parent leaves, the child's whole group is gone."""
    if process.poll() is None:
        _signal_group(process.pid, signal.SIGTERM)
        try:
            process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            _log.warning("the step did not stop within %g s and is killed", GRACE_SECONDS)
    _signal_group(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def _signal_group(leader: int, number: signal.Signals) -> None:
    try:
        os.killpg(leader, number)
    except ProcessLookupError:
        _log.debug("process group %d is gone already", leader)


@contextmanager
def _pass_on_sigterm(process: subprocess.Popen[str]) -> Iterator[list[int]]:
    """While the step runs, SIGTERM goes to it, and SIGKILL if it does not stop; the list is not empty once it did."""
    sigterm_received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield sigterm_received
        return

    kill = threading.Timer(GRACE_SECONDS, _signal_group, (process.pid, signal.SIGKILL))

    def pass_on(number: int, frame: FrameType | None) -> None:
        if not sigterm_received:
            kill.start()
        sigterm_received.append(number)
        _signal_group(process.pid, signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, pass_on)
    try:
        yield sigterm_received
    finally:
        kill.cancel()
        signal.signal(signal.SIGTERM, before)


def _result(step: str, code: int, text: bytes) -> Any:
    if not text:
        ended = f"by signal {signal.Signals(-code).name}" if code < 0 else f"with exit status {code}"
        raise WorkerLost(f"the process of {step} ended {ended} and left no result: see the log above.")
    answer = json.loads(text)
    if "error" in answer:
        kind = getattr(errors, answer["error"]["type"], WorkerLost)
        raise kind(answer["error"]["message"])
    return answer["result"]


def main() -> None:
    """The child: read the arguments, call the step, write the result to the file that the parent opened, if it did."""
    step, *result_fd = sys.argv[1:]
    signal.signal(signal.SIGTERM, _stop)
    log_to_stdout()
    arguments = sys.stdin.readline() or "{}"
    if result_fd:
        threading.Thread(target=_watch_lifeline, daemon=True).start()
    answer: bytes | None
    try:
        answer = b'{"result":%b}' % call(step, arguments)
    except CifarError as error:
        message = printable_lines(str(error))
        answer = json.dumps({"error": {"type": type(error).__name__, "message": message}}).encode()
    except Stopped:
        answer = None
    # After the handler, because its exception holds what the step had opened, such as temporary folders.
    if answer is None:
        os.killpg(os.getpgrp(), signal.SIGKILL)  # cleaned up; nothing that the step started may outlive it
        return
    for descriptor in result_fd:
        with open(int(descriptor), "wb") as result:
            result.write(answer)


def call(step: str, arguments: str) -> bytes:
    """The step's result as JSON; `PayloadError` names step and field that do not fit the annotations."""
    function = pkgutil.resolve_name(step)
    signature = inspect.signature(function, eval_str=True)
    fields: Any = {
        name: (parameter.annotation, ... if parameter.default is inspect.Parameter.empty else parameter.default)
        for name, parameter in signature.parameters.items()
    }
    accepted = create_model("Arguments", __config__=ConfigDict(extra="forbid"), **fields)
    result_type: TypeAdapter[Any] = TypeAdapter(signature.return_annotation)
    try:
        given = accepted.model_validate_json(arguments, strict=True)
    except ValidationError as error:
        raise PayloadError(f"{step} cannot use what it was given: {'; '.join(problems(error))}") from None
    result = function(**{name: getattr(given, name) for name in fields})
    try:
        return result_type.dump_json(result_type.validate_python(result, strict=True))
    except ValidationError as error:
        raise PayloadError(f"{step} returned something else than it promises: {'; '.join(problems(error))}") from None


class PrintableFormatter(logging.Formatter):
    """Messages hold names that users choose."""

    def format(self, record: logging.LogRecord) -> str:
        return printable_lines(super().format(record))


def log_to_stdout(level: int = logging.INFO) -> None:
    """Log lines of the steps as plain text; of libraries, warnings only."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(PrintableFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("cifar_tasks").setLevel(level)


def _stop(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not interrupt the clean-up
    raise Stopped


def _watch_lifeline() -> None:
    """Ends this process soon after its parent is gone."""
    while sys.stdin.read(1):
        continue
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os.killpg(os.getpgid(0), signal.SIGKILL)


if __name__ == "__main__":
    main()
