"""The report's recipe: Adam 1e-3, batch 64, no augmentation. For its CNN, with values divided by 255, to count the
images that it needs; for a pretrained network, to see how far training and test accuracy lie apart.

    .venv/bin/python -m benchmarks.report_recipe --data cifar10-images.zip --epochs 30 --state /tmp/report-recipe

With `--model efficientnet_lite0 --patience 5` it trains a pretrained network.

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
from cifar_tasks.models.classifier import ImageClassifier, build_classifier, load_pretrained
from cifar_tasks.settings import Settings
from cifar_tasks.steps.process import restart_in_step_environment
from cifar_tasks.storage.weights import fetch_weights
from cifar_tasks.training.device import autocast, choose_device, depthwise_in_float32, describe
from cifar_tasks.training.logits import compute_logits
from cifar_tasks.training.loop import Split
from cifar_tasks.training.setup import channel_statistics

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
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float
    images_per_second: float


class Training:
    """Model, optimizer and curve; each epoch's random numbers depend on its number alone, so resuming needs no more."""

    def __init__(self, model: ImageClassifier, device: torch.device) -> None:
        self.model = model.to(device, memory_format=torch.channels_last)
        self.optimizer = Adam(self.model.parameters(), lr=LEARNING_RATE, fused=True)
        self.curve: list[Epoch] = []

    def train_epoch(self, train: Split) -> tuple[float, float, float]:
        """Mean loss and accuracy of the images as they were trained on, and images/s."""
        torch.manual_seed(SEED + len(self.curve) + 1)
        self.model.train()
        device = train.images.device
        began, sums = time.perf_counter(), torch.zeros(2, device=device)
        with depthwise_in_float32(self.model, device):
            for index in torch.randperm(len(train.images)).to(device).split(BATCH):
                with autocast(device):
                    logits = self.model(train.images[index])
                loss = F.cross_entropy(logits.float(), train.labels[index])
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
                right = (logits.detach().argmax(1) == train.labels[index]).sum()
                sums += torch.stack([loss.detach() * len(index), right.float()])
        loss_of_all, accuracy = (sums / len(train.images)).tolist()
        return loss_of_all, accuracy, len(train.images) / (time.perf_counter() - began)

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
    model: Annotated[str, typer.Option(help="cnn, or a model with pretrained weights.")] = "cnn",
    input_size: Annotated[int, typer.Option(help="Pixels per side that a pretrained network gets.")] = 96,
    patience: Annotated[int, typer.Option(min=1, help="Epochs without a higher validation accuracy.")] = 100,
) -> None:
    """Train by the report's recipe and print, epoch by epoch, what it reached after how many images."""
    device = choose_device()
    print(f"report's recipe for {model} on {describe(device)}, torch {torch.__version__}", flush=True)
    print("convolutions and products in the precision above, everything else in float32; evaluated in float32")
    with spooled(open_source(data, Settings(), print).read(print), ImageFormat(), print) as raw:
        train, validation, test = _splits(raw, device, images)
    print(f"{len(train.images)} images to train, {len(validation.images)} to validate", flush=True)
    training = Training(build(model, len(raw.classes), train, input_size), device)
    state.mkdir(parents=True, exist_ok=True)
    if (newest := state / "state.pt").exists():
        training.load(newest)
        print(f"resuming after epoch {len(training.curve)}", flush=True)
    while (number := len(training.curve) + 1) <= epochs and number - best(training.curve).epoch <= patience:
        loss, accuracy, speed = training.train_epoch(train)
        measured = evaluate(training.model, validation)
        training.curve.append(Epoch(number, number * len(train.images), loss, accuracy, *measured, speed))
        training.save(newest)
        write_csv(training.curve, state / "curve.csv")
        _print_epoch(training.curve[-1])
    if model == "cnn":
        print(summary(training.curve))
    trained, tested = (100 * evaluate(training.model, split)[1] for split in (train, test))
    print(f"after epoch {len(training.curve)}: training images {trained:.2f} %, test images {tested:.2f} %")


def build(name: str, classes: int, train: Split, input_size: int) -> ImageClassifier:
    torch.manual_seed(SEED)
    spec = get_model(name)
    config = with_values(spec.recipes["full"], {"dropout": DROPOUT})
    if spec.pretrained is None:
        # No mean and unit deviation: what is left of the preprocessing is the division by 255.
        return ImageClassifier(spec.build(config, classes), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    config = with_values(config, {"input_size": input_size})
    model = build_classifier(config, classes, *channel_statistics(train.images.cpu().numpy()))
    load_pretrained(model, config, fetch_weights(spec, Settings(), print)[0], print)
    return model


def evaluate(model: ImageClassifier, split: Split) -> tuple[float, float]:
    """Mean loss in nats and accuracy of 0–1."""
    logits = compute_logits(model.eval(), split.images)
    loss = F.cross_entropy(logits, split.labels).item()
    return loss, (logits.argmax(1) == split.labels).float().mean().item()


def best(curve: list[Epoch]) -> Epoch:
    """With the highest validation accuracy; before the first epoch one that stands for none."""
    return max(curve, key=lambda epoch: epoch.validation_accuracy, default=Epoch(0, 0, 0, 0, 0, 0, 0))


def _splits(raw: RawDataset, device: torch.device, images: int | None) -> tuple[Split, Split, Split]:
    """Training, validation and test as the product splits them."""
    splits = raw.splits(VALIDATION_FRACTION, SEED)
    kept, held_out = splits["train"], splits["validation"]
    if images is not None:
        order = torch.randperm(len(kept), generator=torch.Generator().manual_seed(SEED))
        kept = kept[order[:images].numpy()]
    train, validation, test = (
        Split(torch.from_numpy(raw.read(part)).to(device), torch.from_numpy(raw.labels[part]).to(device))
        for part in (kept, held_out, raw.test)
    )
    return train, validation, test


def _print_epoch(epoch: Epoch) -> None:
    print(
        f"epoch {epoch.epoch:3}  {epoch.images_seen:9,} images seen  train loss {epoch.train_loss:.4f} "
        f"acc {100 * epoch.train_accuracy:.2f} %  "
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
    reached = next((epoch for epoch in curve if epoch.validation_accuracy >= WANTED_ACCURACY), None)
    wanted = f"{100 * WANTED_ACCURACY:.2f} %"
    if reached is not None:
        return f"{wanted} reached after {reached.images_seen:,} images (epoch {reached.epoch})"
    top = best(curve)
    highest = f"{100 * top.validation_accuracy:.2f} % after {top.images_seen:,} images (epoch {top.epoch})"
    return f"{wanted} not reached in {len(curve)} epochs; best {highest}"


if __name__ == "__main__":
    restart_in_step_environment()
    typer.run(main)
