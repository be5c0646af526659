"""What most tutorials do: PIL images, torchvision's transforms and DataLoader, an eager float32 loop.

`python -m benchmarks.plain_loop loader|training IMAGES BATCH` waits for a line, does one round and prints images/s: in
a process of its own, so that it gains nothing from how the product's own processes are tuned.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.optim import SGD
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.measure import Candidate
from cifar_tasks.models import get_model
from cifar_tasks.steps.process import STEP_ENV

SPEC = get_model("cnn")
CNN = SPEC.recipes["full"]


class Pictures(Dataset[tuple[Any, int]]):
    """Like `torchvision.datasets.CIFAR10`: an array of images, each handed to the transforms as a PIL image."""

    def __init__(self, count: int) -> None:
        random = np.random.default_rng(0)
        self.images = random.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        self.labels = random.integers(0, 10, count)
        steps = [
            transforms.RandomCrop(32, padding=CNN.augmentation.crop_padding, padding_mode="reflect"),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize((0.491, 0.482, 0.447), (0.247, 0.243, 0.262)),
        ]
        self.transform = transforms.Compose(steps)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


def train_epoch(model: nn.Module, optimizer: SGD, loader: "DataLoader[tuple[Tensor, Tensor]]") -> None:
    model.train()
    for images, labels in loader:
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@contextmanager
def in_own_process(kind: str, images: int, batch: int) -> Iterator[Candidate]:
    """A round of `loader` or `training` as a candidate, without the environment that the product's steps have."""
    environment = {name: value for name, value in os.environ.items() if name not in STEP_ENV}
    command = [sys.executable, "-m", "benchmarks.plain_loop", kind, str(images), str(batch)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
    ) as process:
        assert process.stdin
        assert process.stdout

        def measure() -> float:
            print("go", file=process.stdin, flush=True)
            return float(process.stdout.readline())

        try:
            yield measure
        finally:
            process.stdin.close()  # at the end of its input it ends


def main(kind: str, images: int, batch: int) -> None:
    torch.manual_seed(0)
    loader = DataLoader(Pictures(images), batch_size=batch, shuffle=True)
    model = SPEC.build(CNN, 10)
    optimizer = SGD(model.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4)
    for _ in sys.stdin:
        began = time.perf_counter()
        if kind == "training":
            train_epoch(model, optimizer, loader)
        else:
            for _ in loader:
                pass
        print(images / (time.perf_counter() - began), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
