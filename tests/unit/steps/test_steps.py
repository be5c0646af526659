"""What the steps need of the machine they run on."""

import subprocess
import sys


def test_steps_of_the_default_queue_load_without_torch() -> None:
    loaded = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; sys.modules['torch'] = None; "  # an import of torch fails, as where it is not installed
            "from cifar_tasks.steps import create_studies, plan, prepare, promote, register, report, select_params",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert loaded.returncode == 0, loaded.stderr
