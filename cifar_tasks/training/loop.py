"""The training loop: tensors in, metrics out through callbacks. Knows no storage, no MLflow and no Airflow."""

import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cifar_tasks.errors import TrainingError
from cifar_tasks.training import distributed
from cifar_tasks.training.augment import steps_per_epoch, training_batches
from cifar_tasks.training.callbacks import Callback, Progress, Snapshot, running
from cifar_tasks.training.device import autocast, depthwise_in_float32, images_at_once
from cifar_tasks.training.logits import compute_logits
from cifar_tasks.training.sharpness import sam_perturbation, sharpness_aware
from cifar_tasks.training.state import EpochMetrics, TrainingState

LOG_SECONDS = 5.0
"""Between two calls of `on_step`."""

CPU_BATCH = 256
"""Images of CIFAR-10 whose activations a CPU's memory holds; more only where the batch itself is larger."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Split:
    """uint8 images (N, H, W, C), or float32 features (N, F), and int64 labels (N,).

    Best on the device that trains; what does not fit there is moved batch by batch.
    """

    images: Tensor
    labels: Tensor


def fit(state: TrainingState, train: Split, validation: Split, callbacks: Sequence[Callback] = ()) -> None:
    """Train until the epochs are spent or validation loss has not fallen for `patience` epochs; best weights restored.

    A callback may fill `state` from a checkpoint: training continues after its last epoch. Raises `TrainingError` when
    the loss is not finite.

    Several processes that each call this with equal states and splits train together (`training.distributed`): each
    takes its share of every batch, and all see the same metrics.
    """
    with started(state, callbacks):
        train_epochs(state, train, validation, callbacks)


@contextmanager
def started(state: TrainingState, callbacks: Sequence[Callback]) -> Iterator[None]:
    """From `on_train_start` to `on_train_end`. What a callback in rank 0 has resumed, all processes resume."""
    with running(callbacks, state):
        if distributed.size() > 1:
            checkpoint = distributed.broadcast(state.to_bytes() if state.history else None)
            if checkpoint is not None:
                state.load_bytes(checkpoint)
        yield


def train_epochs(state: TrainingState, train: Split, validation: Split, callbacks: Sequence[Callback]) -> None:
    """What `fit` does between `on_train_start` and `on_train_end`."""
    device = next(state.model.parameters()).device
    network = distributed.wrap(state.model, device)
    while not state.finished:
        epoch = len(state.history) + 1
        with depthwise_in_float32(state.model, device):
            trained = _train_epoch(state, network, train, epoch, callbacks)
        loss, accuracy = _validate(state.model, validation)
        state.record(EpochMetrics(epoch=epoch, validation_loss=loss, validation_accuracy=accuracy, **trained))
        snapshot = Snapshot.of(state)
        for callback in callbacks:
            callback.on_epoch_end(snapshot)
    state.restore_best_weights()


def _train_epoch(
    state: TrainingState, network: nn.Module, train: Split, epoch: int, callbacks: Sequence[Callback]
) -> dict[str, float]:
    config, device = state.config, next(state.model.parameters()).device
    steps, processes = steps_per_epoch(len(train.images), config), distributed.size()
    # Sums stay on the device: reading one is a synchronisation, done once per log interval.
    sums, seen = torch.zeros(2, device=device), 0
    began = logged = time.perf_counter()
    network.train()
    batches = training_batches(train.images, train.labels, config, epoch, state.order, distributed.share())
    for step, (images, labels) in enumerate(batches, 1):
        learning_rate = state.learning_rate
        moved = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        gradients = _sam_gradients if sharpness_aware(config, epoch) else _forward_backward
        sums += gradients(state, network, *moved)
        state.step()
        seen += len(images)
        now = time.perf_counter()
        if now - logged >= LOG_SECONDS or step == steps:
            logged = now
            mean_loss = _finite(sums[0].item() / seen, epoch, step, learning_rate)
            rate = processes * seen / (now - began)
            progress = Progress(state.label, epoch, step, steps, mean_loss, learning_rate, rate)
            for callback in callbacks:
                callback.on_step(progress)
    loss, accuracy = (distributed.total(sums) / (processes * seen)).tolist()
    return {
        "train_loss": _finite(loss, epoch, step, learning_rate),
        "train_accuracy": accuracy,
        "learning_rate": learning_rate,
        "images_per_second": processes * seen / (time.perf_counter() - began),
    }


def _sam_gradients(state: TrainingState, network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Like `_forward_backward`, but each `sam_images` of the batch take their gradient at their perturbed weights."""
    chosen = state.config.optimizer
    at_once = max(1, chosen.sam_images // distributed.size())
    sums = torch.zeros(2, device=images.device)
    mean: dict[nn.Parameter, Tensor] = {}
    for part in zip(torch.split(images, at_once), torch.split(labels, at_once), strict=True):
        sums += _forward_backward(state, network, *part)
        with sam_perturbation(state.model, chosen.sam_radius):
            _forward_backward(state, network, *part)
        for weight in state.model.parameters():
            if weight.grad is not None:
                share = weight.grad * (len(part[0]) / len(images))
                mean[weight] = mean[weight] + share if weight in mean else share
    for weight, gradient in mean.items():
        weight.grad = gradient
    return sums


def _forward_backward(state: TrainingState, network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Gradients of one batch; returns the sums of losses and of correct predictions, (2,), on the device.

    When the GPU's memory does not hold the batch, it is halved until it does: gradients add up to those of the whole
    batch, batch norm sees the halves. A CPU takes large images a few at a time: a batch of 128 images at 128 pixels
    would need 6 GB for the CNN's activations.
    """
    while True:
        try:
            state.zero_grad()
            at_once = state.micro_batch or len(images)
            if images.device.type == "cpu":
                at_once = min(at_once, images_at_once(images, max(CPU_BATCH, len(images))))
            sums = [
                _part_backward(network, state, image_part, label_part, len(images))
                for image_part, label_part in zip(
                    torch.split(images, at_once), torch.split(labels, at_once), strict=True
                )
            ]
            return torch.stack(sums).sum(0)
        except torch.OutOfMemoryError as error:
            held = state.micro_batch or len(images)
            if held == 1 or distributed.size() > 1:
                # Processes that train together cannot agree on it in the middle of a step.
                raise TrainingError(
                    f"the GPU's memory does not hold a batch of {held} images: {_first_line(error)} "
                    "Choose a smaller batch_size or input_size."
                ) from error
            state.micro_batch = (held + 1) // 2
            _log.warning(
                "GPU memory does not hold %d images at once: gradients are accumulated from %d, the batch stays %d",
                held,
                state.micro_batch,
                len(images),
            )
        # Here, not above: until the exception is gone it holds on to the memory that is to be freed.
        torch.cuda.empty_cache()


def _part_backward(network: nn.Module, state: TrainingState, images: Tensor, labels: Tensor, batch: int) -> Tensor:
    with autocast(images.device):
        logits = network(images)
    loss = F.cross_entropy(logits.float(), labels, label_smoothing=state.config.label_smoothing, reduction="sum")
    (loss / batch).backward()  # type: ignore[no-untyped-call]
    return torch.stack([loss.detach(), (logits.detach().argmax(1) == labels).sum().float()])


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]


def _finite(loss: float, epoch: int, step: int, learning_rate: float) -> float:
    if not math.isfinite(loss):
        raise TrainingError(
            f"the loss is {loss} in epoch {epoch}, step {step}, at learning rate {learning_rate:.3g}. "
            "Lower the learning rate, or look at the images."
        )
    return loss


def _validate(model: nn.Module, validation: Split) -> tuple[float, float]:
    """Mean cross-entropy in nats and accuracy of 0–1, of the model as it will be saved."""
    share = distributed.share()
    logits = compute_logits(model.eval(), validation.images[share])
    labels = validation.labels[share].to(logits.device)
    loss = F.cross_entropy(logits, labels, reduction="sum")
    sums = distributed.total(torch.stack([loss, (logits.argmax(1) == labels).sum().float()]))
    mean_loss, accuracy = (sums / len(validation.labels)).tolist()
    return mean_loss, accuracy
