"""Each worker takes a GPU that no other has. A script in place of nvidia-smi names the GPUs: there is none here."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "docker" / "gpu-worker.sh"


@pytest.fixture
def machine(tmp_path: Path) -> Iterator["Machine"]:
    machine = Machine(tmp_path)
    yield machine
    machine.stop()


class Machine:
    """A folder of commands in place of those that a worker finds in its container."""

    def __init__(self, folder: Path) -> None:
        self.bin, self.locks, self.workers = folder / "bin", folder / "gpus", list[subprocess.Popen[str]]()
        self.bin.mkdir()
        self.locks.mkdir()
        self.command("python", 'echo "GPU=${CUDA_VISIBLE_DEVICES:-none}"; exec sleep 60')

    def command(self, name: str, body: str) -> None:
        (self.bin / name).write_text(f"#!/bin/sh\n{body}\n")
        (self.bin / name).chmod(0o755)

    def start(self) -> subprocess.Popen[str]:
        environment = {"PATH": f"{self.bin}:{os.environ['PATH']}", "GPU_LOCKS": str(self.locks)}
        worker = subprocess.Popen(
            ["bash", SCRIPT], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.workers.append(worker)
        return worker

    def gpu(self, worker: subprocess.Popen[str]) -> str:
        for line in worker.stdout or ():
            if line.startswith("GPU="):
                return line.strip().removeprefix("GPU=")
        return f"exit {worker.wait(10)}"

    def stop(self) -> None:
        for worker in self.workers:
            worker.kill()
            worker.wait(10)
            if worker.stdout:
                worker.stdout.close()


def test_each_worker_takes_a_gpu_of_its_own_and_one_too_many_says_so(machine: Machine):
    machine.command("nvidia-smi", "echo GPU-aaaa; echo GPU-bbbb")
    first, second = machine.start(), machine.start()
    assert {machine.gpu(first), machine.gpu(second)} == {"GPU-aaaa", "GPU-bbbb"}
    assert machine.gpu(machine.start()) == "exit 1"


def test_the_gpu_of_a_worker_that_was_killed_is_free_again(machine: Machine):
    machine.command("nvidia-smi", "echo GPU-aaaa")
    first = machine.start()
    assert machine.gpu(first) == "GPU-aaaa"
    first.kill()
    first.wait(10)
    assert machine.gpu(machine.start()) == "GPU-aaaa"


@pytest.mark.parametrize("answer", [None, "exit 9", "true"])
def test_without_a_gpu_it_trains_on_the_cpu_and_says_so(machine: Machine, answer: str | None):
    if answer:
        machine.command("nvidia-smi", answer)
    worker = machine.start()
    said = next(iter(worker.stdout or ()))
    assert "trains on the CPU" in said
    assert machine.gpu(worker) == "none"
