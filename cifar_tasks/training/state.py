"""Everything that training carries from one epoch to the next, and how it is written as bytes.

Written as safetensors: no pickle, so a checkpoint from storage can never run code.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.optim import Optimizer

from cifar_tasks.config import TrainConfig
from cifar_tasks.errors import IntegrityError
from cifar_tasks.training.optimizer import build_optimizers, one_cycle


@dataclass(frozen=True)
class EpochMetrics:
    """What one epoch gave. Losses are cross-entropies in nats, accuracies are shares of 0–1."""

    epoch: int
    """Counted from 1."""
    train_loss: float
    """Over the augmented batches, with label smoothing."""
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float
    learning_rate: float
    """Of the epoch's last step."""
    images_per_second: float
    """Training only, without validation."""

    def by_name(self, label: str = "") -> dict[str, float]:
        """All but the epoch, each name with the label of its part of the training before it."""
        return {f"{label}{name}": value for name, value in asdict(self).items() if name != "epoch"}


class TrainingState:
    """Model, optimizers, schedules, random state, history and the best weights so far."""

    def __init__(self, model: nn.Module, config: TrainConfig, steps_per_epoch: int, label: str = "") -> None:
        """`label` is that of a part of a training (`Callback`)."""
        self.model = model
        self.config = config
        self.label = label
        self.optimizers = build_optimizers(model, config)
        self.schedules = [one_cycle(each, config, config.epochs * steps_per_epoch) for each in self.optimizers]
        self.order = torch.Generator().manual_seed(config.seed)
        self.history: list[EpochMetrics] = []
        self.best_weights: dict[str, Tensor] = {}
        self.micro_batch: int | None = None
        """Images whose gradients are computed at once if memory does not hold a batch; none for all of it."""

    @property
    def learning_rate(self) -> float:
        """Of the coming step, where it is highest."""
        return max(float(group["lr"]) for group in self.optimizers[0].param_groups)

    @property
    def steps_done(self) -> int:
        return int(self.schedules[0].last_epoch)

    @property
    def best(self) -> EpochMetrics:
        """The epoch with the lowest validation loss, the earliest of equals."""
        return min(self.history, key=lambda metrics: metrics.validation_loss)

    @property
    def stopped_early(self) -> bool:
        return bool(self.history) and self.history[-1].epoch - self.best.epoch >= self.config.stopping.patience

    @property
    def ending(self) -> str:
        """Why training ended, or would."""
        if self.stopped_early:
            return f"validation loss did not fall for {self.config.stopping.patience} epochs"
        return "all epochs are done"

    @property
    def finished(self) -> bool:
        return len(self.history) >= self.config.epochs or self.stopped_early

    def zero_grad(self) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)

    def step(self) -> None:
        for optimizer, schedule in zip(self.optimizers, self.schedules, strict=True):
            optimizer.step()
            schedule.step()

    def record(self, metrics: EpochMetrics) -> None:
        self.history.append(metrics)
        if self.best is metrics:
            self.best_weights = {name: value.detach().clone() for name, value in self.model.state_dict().items()}

    def restore_best_weights(self) -> None:
        self.model.load_state_dict(self.best_weights)

    def to_bytes(self) -> bytes:
        """A copy of all of it, as safetensors."""
        scalars = {
            "epoch": len(self.history),
            "groups": [optimizer.state_dict()["param_groups"] for optimizer in self.optimizers],
            "schedules": [
                {k: v for k, v in schedule.state_dict().items() if not callable(v)} for schedule in self.schedules
            ],
            "history": [asdict(metrics) for metrics in self.history],
            "micro_batch": self.micro_batch,
            "config": asdict(self.config),
            "threads": torch.get_num_threads(),
        }
        return save(dict(self._tensors()), metadata={"state": json.dumps(scalars)})

    def load_bytes(self, data: bytes) -> None:
        """Resume where `to_bytes` was called; `IntegrityError` if the bytes are of another training.

        With as many threads as there, because sums in another order end in other weights.
        """
        tensors, scalars = _parse(data)
        if scalars["config"] != json.loads(json.dumps(asdict(self.config))):
            raise IntegrityError("the checkpoint belongs to a training with another configuration")
        self.model.load_state_dict(_part(tensors, "model"))
        self.best_weights = {name: value.clone() for name, value in self.model.state_dict().items()}
        for name, value in _part(tensors, "best").items():
            self.best_weights[name].copy_(value)
        for number, optimizer in enumerate(self.optimizers):
            moments = _moments(optimizer, _part(tensors, f"optimizer.{number}"))
            optimizer.load_state_dict({"state": moments, "param_groups": scalars["groups"][number]})
            self.schedules[number].load_state_dict(scalars["schedules"][number])
        self.order.set_state(tensors["random.order"])
        torch.set_rng_state(tensors["random.torch"])
        if torch.cuda.is_available() and "random.cuda" in tensors:  # not if the training began on a CPU
            torch.cuda.set_rng_state(tensors["random.cuda"])
        self.history = [EpochMetrics(**entry) for entry in scalars["history"]]
        self.micro_batch = scalars["micro_batch"]
        torch.set_num_threads(scalars["threads"])

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        for name, value in self.model.state_dict().items():
            # Copies, because layers may share their weights and safetensors takes no tensors that share memory.
            yield f"model.{name}", value.clone(memory_format=torch.contiguous_format)
        for name, value in self.best_weights.items():
            yield f"best.{name}", value.contiguous()
        for number, optimizer in enumerate(self.optimizers):
            for parameter, moments in optimizer.state_dict()["state"].items():
                for name, value in moments.items():
                    if value is not None:
                        yield f"optimizer.{number}.{parameter}.{name}", value.contiguous()
        yield "random.order", self.order.get_state()
        yield "random.torch", torch.get_rng_state()
        if torch.cuda.is_available():
            yield "random.cuda", torch.cuda.get_rng_state()


def _moments(optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    """Optimizer state by parameter, in the memory layout of the parameter that it belongs to."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, name = key.split(".", 1)
        like = parameters[int(number)]
        if value.shape == like.shape:
            value = torch.empty_like(like).copy_(value)
        moments.setdefault(int(number), {})[name] = value
    return moments


def _parse(data: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        return load(data), json.loads(header["__metadata__"]["state"])
    except (SafetensorError, ValueError, KeyError) as error:
        raise IntegrityError(f"the checkpoint cannot be read: {error}") from error


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{prefix}."): t for name, t in tensors.items() if name.startswith(f"{prefix}.")}
