"""The entry point of the `cifar` command."""

import os
import subprocess
import sys
import tomllib

import pytest

from cifar_tasks.settings import PROJECT
from cifar_tasks.steps.process import STEP_ENV

PROGRAM = """
import os, sys
from cifar_tasks.cli import main
main.app = lambda: print(*(f"{name}={os.environ.get(name)}" for name in %r))
sys.argv = ["cifar", *sys.argv[1:]]
main.main()
"""


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None  # as in an image without it
from cifar_tasks.cli import main
sys.argv = ["cifar", "predict", "cat.png"]
main.app = lambda: __import__("torch")
main.main()
"""

INTERRUPTED = """
import sys
class Interrupted:
    def find_spec(self, name, *_):
        if name == "typer":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupted())
%s
"""
ENTRY = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["scripts"]["cifar"]


def environment_of(*command: str) -> dict[str, str]:
    """The variables of a step, as a command sees them that is started without them."""
    without = {name: value for name, value in os.environ.items() if name not in STEP_ENV}
    program = [sys.executable, "-c", PROGRAM % (list(STEP_ENV),), *command]
    done = subprocess.run(program, env=without, capture_output=True, text=True, timeout=60, check=True)
    return dict(word.split("=") for word in done.stdout.split())


def test_a_run_in_this_process_has_the_environment_of_a_step():
    assert environment_of("run", "--force") == STEP_ENV


def test_other_commands_keep_the_environment_that_they_are_given():
    assert set(environment_of("status").values()) == {"None"}


def test_a_command_that_needs_torch_says_where_to_run_it_in_an_image_without_it():
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "--entrypoint 'python -m cifar_tasks.cli' gpu-worker COMMAND" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "start",
    [
        "__import__('runpy').run_module('cifar_tasks.cli', run_name='__main__')",
        "from {} import {} as main; main()".format(*ENTRY.split(":")),
    ],
)
def test_ctrl_c_before_the_command_is_there_ends_it_without_a_traceback(start: str):
    program = [sys.executable, "-c", INTERRUPTED % start]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (130, "")


@pytest.mark.parametrize(
    ("to", "status", "said"),
    [
        (">/dev/full", 1, "error: cannot write: No space left on device. Free space, or print elsewhere.\n"),
        (">&-", 1, ""),
    ],
)
def test_an_output_that_takes_nothing_is_no_traceback(tmp_path, to: str, status: int, said: str):
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m cifar_tasks.cli status {to}"],
        env=os.environ | {"CIFAR_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (status, said)
