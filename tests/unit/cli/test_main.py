"""The entry point of the `cifar` command."""

import os
import subprocess
import sys

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
