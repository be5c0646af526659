"""Does this machine have the disk, the memory and the GPU that the work needs, and no variables that lead elsewhere?"""

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import psutil

from cifar_tasks.deployment.doctor.check_runner import Deployment, Finding, judge
from cifar_tasks.deployment.stack.environment import StackOptions, other_addresses
from cifar_tasks.deployment.stack.supervisord import MARKER
from cifar_tasks.errors import nearest
from cifar_tasks.settings import Settings, variable

NO_SETTINGS = {"CIFAR_IMAGES", "CIFAR_VERSION", MARKER}  # of docker-compose.yaml and of the embedded stack
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 – only its size is read
ASK_TORCH = """
import torch
count = torch.cuda.device_count() if torch.cuda.is_available() else 0
gpus = [torch.cuda.get_device_properties(number) for number in range(count)]
names = ", ".join(f"{gpu.name} ({gpu.total_memory / 2**30:.0f} GiB)" for gpu in gpus)
print(names, f"torch {torch.__version__}, CUDA {torch.version.cuda or 'none'}", sep="\\t")
"""


def variables(deployment: Deployment) -> str:
    """Unset them, or correct their names, in the shell that starts the stack and its commands."""
    shell, fields = deployment.variables, (*Settings.model_fields, *StackOptions.model_fields)
    known = NO_SETTINGS.union(map(variable, fields))
    unknown = sorted(name for name in shell if name.startswith("CIFAR_") and name not in known)
    found = [f"{name} is no setting{nearest(name, known)}" for name in unknown]
    if deployment.embedded:
        found += [f"{other} has no effect: the stack has its own" for other in other_addresses(shell, os.environ)]
        if shell.get("PYTHONPATH"):
            found.append("PYTHONPATH is set: its modules come before those of this installation")
    return judge("; ".join(found) or "none that leads elsewhere", warning=bool(found))


def disk(deployment: Deployment) -> str:
    """Delete what is not needed there, or set CIFAR_HOME to a folder on a larger disk."""
    home = deployment.settings.home.absolute()
    free = shutil.disk_usage(next(path for path in (home, *home.parents) if path.exists())).free
    message = f"{free / 1e9:.1f} GB free at {home}"
    return judge(message, warning=free < deployment.disk_warning, failure=free < deployment.disk_failure)


def memory(deployment: Deployment) -> str:
    """Stop other programs, or train fewer models at a time (CIFAR_GPU_SLOTS)."""
    found = psutil.virtual_memory()
    message = f"{found.available / 1e9:.1f} of {found.total / 1e9:.0f} GB available"
    return judge(message, warning=found.available < deployment.memory_warning)


def shared_memory(deployment: Deployment) -> str:
    """As root: mount -o remount,size=2G /dev/shm; in a container: docker run --shm-size 2g"""
    judge("no training runs here: the gpu-workers have their own", skipped=not deployment.embedded)
    judge(f"there is no {SHARED_MEMORY} on this system", skipped=not SHARED_MEMORY.exists())
    free = shutil.disk_usage(SHARED_MEMORY).free
    message = f"{free / 1e9:.1f} GB free in {SHARED_MEMORY}"
    return judge(message, warning=free < deployment.shared_memory_warning)


def gpu(deployment: Deployment) -> str:
    """Check that nvidia-smi shows a GPU, update its driver for that CUDA, and unset CUDA_VISIBLE_DEVICES."""
    judge("no torch on this machine: the gpu-workers have it", skipped=find_spec("torch") is None)
    # In a process of its own: a driver that hangs is given up, and no GPU memory is held.
    command, timeout = [sys.executable, "-c", ASK_TORCH], deployment.torch_timeout
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        raise Finding("warning", f"torch does not answer within {timeout:.0f} s", "See if nvidia-smi does.") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise Finding("failure", f"torch cannot be loaded: {last}", "Install what requirements.lock pins: make setup")
    gpus, torch = done.stdout.splitlines()[-1].split("\t")
    if not gpus and shutil.which("nvidia-smi"):
        raise Finding("warning", f"NVIDIA's driver is here, but no GPU is visible to {torch}")
    return f"{gpus or 'none, training runs on the CPU'} ({torch})"
