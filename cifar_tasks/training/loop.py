"""The training loop: arrays in, metrics out through callbacks. Knows no storage, no MLflow and no Airflow."""

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cifar_tasks.errors import TrainingError
from cifar_tasks.training.augment import steps_per_epoch, training_batches
from cifar_tasks.training.state import EpochMetrics, TrainingState

EVALUATION_BATCH = 500
"""Images; large enough to keep a GPU busy, small enough for a CPU's cache not to matter."""


@dataclass(frozen=True)
class Progress:
    """Where training stands within an epoch."""

    epoch: int
    step: int
    steps: int
    loss: float
    learning_rate: float
    images_per_second: float


@dataclass(frozen=True)
class Split:
    """uint8 images (N, H, W, C) and int64 labels (N,), on the device that trains."""

    images: Tensor
    labels: Tensor


def choose_device() -> torch.device:
    """CUDA where there is a GPU, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def fit(
    state: TrainingState,
    train: Split,
    validation: Split,
    on_epoch: Callable[[TrainingState], None],
    on_progress: Callable[[Progress], None],
    log_seconds: float = 5.0,
) -> None:
    """Train until the epochs are spent or validation loss has not fallen for `patience` epochs; best weights restored.

    `state` may have been filled from a checkpoint: training goes on after its last epoch. `on_epoch` is called with
    the state after every epoch. Raises `TrainingError` when the loss is not finite.
    """
    while not state.finished:
        epoch = len(state.history) + 1
        trained = _train_epoch(state, train, epoch, on_progress, log_seconds)
        logits = predict_logits(state.model.eval(), validation.images)
        loss, accuracy = score(logits, validation.labels)
        state.record(EpochMetrics(epoch=epoch, validation_loss=loss, validation_accuracy=accuracy, **trained))
        on_epoch(state)
    state.restore_best_weights()


def _train_epoch(
    state: TrainingState, train: Split, epoch: int, on_progress: Callable[[Progress], None], log_seconds: float
) -> dict[str, float]:
    model, config, device = state.model, state.config, train.images.device
    steps = steps_per_epoch(len(train.images), config)
    # Sums stay on the device: reading one is a synchronisation, done once a log interval.
    loss_sum, correct, seen = torch.zeros((), device=device), torch.zeros((), device=device), 0
    began = logged = time.perf_counter()
    model.train()
    batches = training_batches(train.images, train.labels, config, epoch, state.order)
    for step, (images, labels) in enumerate(batches, 1):
        learning_rate = float(state.schedule.get_last_lr()[0])
        with _autocast(device):
            logits = model(images)
            loss = F.cross_entropy(logits.float(), labels, label_smoothing=config.label_smoothing)
        state.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        state.optimizer.step()
        state.schedule.step()
        loss_sum += loss.detach() * len(images)
        correct += (logits.detach().argmax(1) == labels).sum()
        seen += len(images)
        now = time.perf_counter()
        if now - logged >= log_seconds or step == steps:
            logged = now
            mean_loss = _finite(loss_sum.item() / seen, epoch, step, learning_rate)
            on_progress(Progress(epoch, step, steps, mean_loss, learning_rate, seen / (now - began)))
    return {
        "train_loss": loss_sum.item() / seen,
        "train_accuracy": correct.item() / seen,
        "learning_rate": learning_rate,
        "images_per_second": seen / (time.perf_counter() - began),
    }


def _finite(loss: float, epoch: int, step: int, learning_rate: float) -> float:
    if not math.isfinite(loss):
        raise TrainingError(
            f"the loss is {loss} in epoch {epoch}, step {step}, at learning rate {learning_rate:.3g}. "
            "Lower the learning rate, or look at the images."
        )
    return loss


def _autocast(device: torch.device) -> AbstractContextManager[Any]:
    """bfloat16 on CUDA; on a CPU without matrix units it measured no faster, so float32 there."""
    if device.type == "cuda":
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return nullcontext()


@torch.inference_mode()
def predict_logits(model: nn.Module, images: Tensor) -> Tensor:
    """float32 logits (N, classes) of uint8 images (N, H, W, C), on the images' device, in float32 throughout.

    The model must be in evaluation mode; an exported one always is.
    """
    return torch.cat([model(batch) for batch in torch.split(images, EVALUATION_BATCH)]).float()


def score(logits: Tensor, labels: Tensor) -> tuple[float, float]:
    """Mean cross-entropy in nats and accuracy of 0–1."""
    loss = F.cross_entropy(logits, labels).item()
    accuracy = (logits.argmax(1) == labels).float().mean().item()
    return loss, accuracy
