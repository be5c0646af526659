"""The report's CNN recipe, to count the images that it needs: Adam 1e-3, batch 64, values divided by 255, nothing else.

    python -m benchmarks.report_recipe --data cifar10.zip --epochs 30 --state /tmp/report-recipe

Can be stopped at any time; the same command resumes after the last whole epoch and ends with the same figures.
"""

import csv
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
import typer
from torch.optim import Adam

from cifar_tasks.config import with_values
from cifar_tasks.data.image_format import ImageFormat
from cifar_tasks.data.preparation import VALIDATION_FRACTION
from cifar_tasks.data.source import open_source
from cifar_tasks.data.spool import RawDataset, spooled
from cifar_tasks.models import get_model
from cifar_tasks.models.classifier import ImageClassifier
from cifar_tasks.settings import Settings
from cifar_tasks.training.device import autocast, choose_device, describe
from cifar_tasks.training.logits import compute_logits
from cifar_tasks.training.loop import Split

WANTED_ACCURACY = 0.8561
"""Of the report's CNN."""
BATCH = 64
LEARNING_RATE = 1e-3
DROPOUT = 0.25
SEED = 0
"""Of the split, as the product draws it, and of everything random in training."""


@dataclass(frozen=True)
class Epoch:
    """Losses in nats, accuracy of 0–1."""

    epoch: int
    images_seen: int
    train_loss: float
    validation_loss: float
    validation_accuracy: float
    images_per_second: float


class Training:
    """Model, optimizer and curve; each epoch's random numbers depend on its number alone, so resuming needs no more."""

    def __init__(self, classes: int, device: torch.device) -> None:
        torch.manual_seed(SEED)
        spec = get_model("cnn")
        network = spec.build(with_values(spec.recipes["full"], {"dropout": DROPOUT}), classes)
        # No mean and unit deviation: what is left of the preprocessing is the division by 255.
        model = ImageClassifier(network, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
        self.model = model.to(device, memory_format=torch.channels_last)
        self.optimizer = Adam(self.model.parameters(), lr=LEARNING_RATE, fused=True)
        self.curve: list[Epoch] = []

    def train_epoch(self, train: Split) -> tuple[float, float]:
        """Mean loss, and images/s."""
        torch.manual_seed(SEED + len(self.curve) + 1)
        self.model.train()
        device = train.images.device
        began, total = time.perf_counter(), torch.zeros((), device=device)
        for index in torch.randperm(len(train.images)).to(device).split(BATCH):
            with autocast(device):
                logits = self.model(train.images[index])
            loss = F.cross_entropy(logits.float(), train.labels[index])
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            total += loss.detach() * len(index)
        return total.item() / len(train.images), len(train.images) / (time.perf_counter() - began)

    def save(self, path: Path) -> None:
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        draft = path.with_suffix(".draft")
        torch.save(state | {"curve": [asdict(epoch) for epoch in self.curve]}, draft)
        draft.replace(path)

    def load(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.curve = [Epoch(**epoch) for epoch in state["curve"]]


def main(
    data: Annotated[str, typer.Option(help="Source of the images, as for `cifar demo --source`.")],
    state: Annotated[Path, typer.Option(help="Folder that keeps state.pt after every epoch, and curve.csv.")],
    epochs: Annotated[int, typer.Option(min=1)] = 30,
    images: Annotated[int | None, typer.Option(min=BATCH, help="Train on N images only.")] = None,
) -> None:
    """Train by the report's recipe and print, epoch by epoch, what it reached after how many images."""
    device = choose_device()
    print(f"report's recipe on {describe(device)}, torch {torch.__version__}", flush=True)
    print("convolutions and products in the precision above, everything else in float32; evaluated in float32")
    with spooled(open_source(data, Settings(), print).read(print), ImageFormat(), print) as raw:
        train, validation = _splits(raw, device, images)
    print(f"{len(train.images)} images to train, {len(validation.images)} to validate", flush=True)
    training = Training(len(raw.classes), device)
    state.mkdir(parents=True, exist_ok=True)
    if (newest := state / "state.pt").exists():
        training.load(newest)
        print(f"resuming after epoch {len(training.curve)}", flush=True)
    while (number := len(training.curve) + 1) <= epochs:
        loss, speed = training.train_epoch(train)
        logits = compute_logits(training.model.eval(), validation.images)
        measured = (
            F.cross_entropy(logits, validation.labels).item(),
            (logits.argmax(1) == validation.labels).float().mean().item(),
        )
        training.curve.append(Epoch(number, number * len(train.images), loss, *measured, speed))
        training.save(newest)
        write_csv(training.curve, state / "curve.csv")
        _print_epoch(training.curve[-1])
    print(summary(training.curve))


def _splits(raw: RawDataset, device: torch.device, images: int | None) -> tuple[Split, Split]:
    """Training and validation as the product splits them; the test images are not looked at."""
    splits = raw.splits(VALIDATION_FRACTION, SEED)
    kept, held_out = splits["train"], splits["validation"]
    if images is not None:
        order = torch.randperm(len(kept), generator=torch.Generator().manual_seed(SEED))
        kept = kept[order[:images].numpy()]
    train, validation = (
        Split(torch.from_numpy(raw.read(part)).to(device), torch.from_numpy(raw.labels[part]).to(device))
        for part in (kept, held_out)
    )
    return train, validation


def _print_epoch(epoch: Epoch) -> None:
    print(
        f"epoch {epoch.epoch:3}  {epoch.images_seen:9,} images seen  train loss {epoch.train_loss:.4f}  "
        f"validation loss {epoch.validation_loss:.4f} acc {100 * epoch.validation_accuracy:.2f} %  "
        f"{epoch.images_per_second:.0f} images/s",
        flush=True,
    )


def write_csv(curve: list[Epoch], path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(asdict(curve[0])))
        writer.writeheader()
        writer.writerows(asdict(epoch) for epoch in curve)


def summary(curve: list[Epoch]) -> str:
    """When the report's accuracy was reached first, else the best that was."""
    best = max(curve, key=lambda epoch: epoch.validation_accuracy)
    reached = next((epoch for epoch in curve if epoch.validation_accuracy >= WANTED_ACCURACY), None)
    wanted = f"{100 * WANTED_ACCURACY:.2f} %"
    if reached is not None:
        return f"{wanted} reached after {reached.images_seen:,} images (epoch {reached.epoch})"
    highest = f"{100 * best.validation_accuracy:.2f} % after {best.images_seen:,} images (epoch {best.epoch})"
    return f"{wanted} not reached in {len(curve)} epochs; best {highest}"


if __name__ == "__main__":
    typer.run(main)
