"""Has this machine the room, and the GPU, that work here needs?"""

import json
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil

from cifar_tasks.deployment.doctor.deployment import Deployment, Limits
from cifar_tasks.deployment.doctor.finding import Finding, failure, ok, skipped, warning

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 – looked at, never written to
TORCH_SECONDS = 30.0
"""Given to torch, whose import alone takes 10 s on a busy machine with a cold disk."""
ASK_TORCH = """
import json, torch
there = torch.cuda.is_available()
gpus = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())] if there else []
driver = getattr(torch._C, "_cuda_getDriverVersion", None)
print(json.dumps({
    "torch": torch.__version__,
    "cuda": torch.version.cuda,
    "driver": driver() if there and driver else None,
    "gpus": [[gpu.name, gpu.total_memory] for gpu in gpus],
}))
"""


def disk(deployment: Deployment) -> Finding:
    home = deployment.settings.home.absolute()
    there = next(path for path in (home, *home.parents) if path.exists())
    return judge_disk(shutil.disk_usage(there).free, home, deployment.limits)


def judge_disk(free: float, home: Path, limits: Limits) -> Finding:
    says = f"{free / 1e9:.1f} GB free at {home}"
    remedy = "Delete what is not needed there, or set CIFAR_HOME to a folder on a larger disk"
    if free < limits.disk_failure:
        return failure(says, remedy)
    return warning(says, remedy) if free < limits.disk_warning else ok(says)


def memory(deployment: Deployment) -> Finding:
    found = psutil.virtual_memory()
    return judge_memory(found.available, found.total, deployment.limits)


def judge_memory(available: float, total: float, limits: Limits) -> Finding:
    says = f"{available / 1e9:.1f} of {total / 1e9:.0f} GB available"
    if available < limits.memory_warning:
        return warning(says, "End other programs, or train fewer models at a time (CIFAR_GPU_SLOTS)")
    return ok(says)


def shared_memory(deployment: Deployment) -> Finding:
    if not deployment.embedded:
        return skipped("no training runs here: the gpu-workers have their own (shm_size)")
    if not SHARED_MEMORY.exists():
        return skipped(f"there is no {SHARED_MEMORY} on this system")
    return judge_shared_memory(shutil.disk_usage(SHARED_MEMORY).free, deployment.limits)


def judge_shared_memory(free: float, limits: Limits) -> Finding:
    says = f"{free / 1e9:.1f} GB free in {SHARED_MEMORY}"
    if free < limits.shared_memory_warning:
        return warning(
            says, f"As root: mount -o remount,size=2G {SHARED_MEMORY}; in a container: docker run --shm-size 2g"
        )
    return ok(says)


def gpu(_deployment: Deployment) -> Finding:
    """Asked in a process of its own: a driver that hangs is given up, and no GPU memory is held."""
    if find_spec("torch") is None:
        return skipped("no torch on this machine: the gpu-workers have it")
    try:
        done = subprocess.run([sys.executable, "-c", ASK_TORCH], capture_output=True, text=True, timeout=TORCH_SECONDS)
    except subprocess.TimeoutExpired:
        return warning(f"torch says nothing within {TORCH_SECONDS:.0f} s", "See whether nvidia-smi answers; try again")
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return failure(f"torch cannot be loaded: {last}", "Install what requirements.lock pins: make setup")
    return judge_gpu(json.loads(done.stdout.splitlines()[-1]), driver_is_here=shutil.which("nvidia-smi") is not None)


def judge_gpu(seen: dict[str, Any], driver_is_here: bool) -> Finding:
    """`seen` as `ASK_TORCH` prints it: versions, and name and bytes of memory of each GPU."""
    torch = f"torch {seen['torch']}"
    if seen["gpus"]:
        names = ", ".join(f"{name} ({size / 2**30:.0f} GiB)" for name, size in seen["gpus"])
        driver = f", driver for CUDA {seen['driver'] // 1000}.{seen['driver'] % 1000 // 10}" if seen["driver"] else ""
        return ok(f"{names}{driver}, {torch}")
    if driver_is_here:
        build = f"CUDA {seen['cuda']}" if seen["cuda"] else "CPUs only"
        return warning(
            f"NVIDIA's driver is here, but {torch} (built for {build}) sees no GPU",
            "See that nvidia-smi shows a GPU, update its driver for that CUDA, and unset CUDA_VISIBLE_DEVICES",
        )
    return ok(f"none: training runs on the CPU ({torch})")
