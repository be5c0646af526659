"""What `tests/unit/training/test_distributed.py` runs in several processes that train together."""

import dataclasses
import hashlib
import os
import signal
import time
from collections import OrderedDict
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import torch.distributed as dist
from timm.layers import BatchNormAct2d

from cifar_tasks.config import TrainConfig, with_values
from cifar_tasks.errors import ConfigError
from cifar_tasks.models import get_model
from cifar_tasks.models.classifier import ImageClassifier, build_classifier
from cifar_tasks.training import device, distributed
from cifar_tasks.training.augment import training_batches
from cifar_tasks.training.callbacks import Callback, Snapshot
from cifar_tasks.training.loop import Split
from cifar_tasks.training.state import TrainingState
from cifar_tasks.training.transfer import fit_classifier

HALF = (0.5, 0.5, 0.5)
IMAGES, BATCH, CLASSES = 192, 32, 4


def split(count: int, seed: int, *, learnable: bool = True) -> Split:
    """Classes told apart by the brightness of the picture, or by nothing at all."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, CLASSES, (count,), generator=random)
    noise = torch.randint(0, 120, (count, 32, 32, 3), generator=random)
    return Split((noise + learnable * labels.view(-1, 1, 1, 1) * 30).to(torch.uint8), labels)


def config(**changes: Any) -> TrainConfig:
    # Not Muon: it orthogonalises in bfloat16, where the last bit of a gradient becomes a percent of a step.
    defaults = {"epochs": 1, "batch_size": BATCH, "learning_rate": 0.05, "logit_scale": 1.0, "optimizer": "sgd"}
    return with_values(get_model("cnn").recipes["demo"], {**defaults, **changes})


def small_model() -> ImageClassifier:
    torch.manual_seed(0)
    features = [
        torch.nn.Conv2d(3, 8, 3, stride=2),
        torch.nn.ReLU(),
        torch.nn.BatchNorm2d(8),
        torch.nn.Conv2d(8, 8, 3, stride=2),
        BatchNormAct2d(8),  # of timm, with the activation inside
        torch.nn.Flatten(),
    ]
    head = torch.nn.Linear(8 * 7 * 7, CLASSES)
    network = torch.nn.Sequential(OrderedDict(features=torch.nn.Sequential(*features), classifier=head))
    return ImageClassifier(network, HALF, HALF).to(memory_format=torch.channels_last)


def look() -> dict[str, Any]:
    """Everything that several processes are compared with one for."""
    found = {"batches": _batches(), "trained": _trained(config()), "stopped": _stopped(), "threads": _threads()}
    # No further: at 0.1 roundings already move an activation across ReLU's bend.
    found["sharpness aware"] = _trained(config(sam_radius=0.03, sam_share=1, sam_images=BATCH // 2))
    found["head first"] = _trained(config(head_epochs=2, head_learning_rate=0.05))
    return found | {"addresses": _addresses(), "group": os.getpgid(0), "resumed": _resumed()}


def _batches() -> list[list[dict[int, str]]]:
    """For each process and batch: digests of the augmented images by their number in the data."""
    images, numbers = split(IMAGES + 5, 0).images, torch.arange(IMAGES + 5)
    batches = training_batches(
        images, numbers, config(), 1, torch.Generator().manual_seed(0), share=distributed.share()
    )
    return _of_all(
        [
            {int(n): hashlib.sha256(image.numpy().tobytes()).hexdigest() for image, n in zip(*batch, strict=True)}
            for batch in batches
        ]
    )


def _trained(settings: TrainConfig, *callbacks: Callback, learnable: bool = True) -> list[dict[str, Any]]:
    """For each process: metrics by epoch, and weights, of a training in float32."""
    with pytest.MonkeyPatch.context() as patch:
        # In bfloat16, where the CPU is fast in it, roundings differ: a loss of this training by 5e-4.
        patch.setattr(device, "precision", lambda _: torch.float32)
        model = small_model()
        # 63 images to validate: not a multiple of the processes.
        state = fit_classifier(model, settings, split(IMAGES, 0), split(63, 1, learnable=learnable), callbacks)
    metrics = [dataclasses.asdict(epoch) for epoch in state.history]
    weights = {name: value.tolist() for name, value in model.state_dict().items()}
    return _of_all({"metrics": metrics, "weights": weights, "ending": state.ending})


def train_kind(kind: str, **values: Any) -> list[dict[str, Any]]:
    """For each process: the names of what has moved in a network of this kind, and the digest of all of it."""
    plain = {"input_size": 0, "batch_size": 32, "epochs": 1, "label_smoothing": 0.0}
    settings = with_values(get_model(kind).recipes["demo"], {**plain, **values})
    torch.manual_seed(0)
    model = build_classifier(settings, CLASSES, HALF, HALF)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fit_classifier(model, settings, split(64, 0), split(63, 1))
    after = model.state_dict()
    digest = hashlib.sha256(b"".join(value.numpy().tobytes() for value in after.values())).hexdigest()
    return _of_all({"moved": [name for name in after if not torch.equal(after[name], before[name])], "digest": digest})


def _stopped() -> list[dict[str, Any]]:
    return _trained(config(epochs=30, patience=2), learnable=False)


class Checkpoints(Callback):
    """Resumes from the first epoch of an earlier training, and counts the epochs that follow."""

    def __init__(self) -> None:
        self.first: bytes | None = None
        self.epochs = 0

    def on_train_start(self, state: TrainingState) -> None:
        if self.first is not None:
            state.load_bytes(self.first)

    def on_epoch_end(self, snapshot: Snapshot) -> None:
        self.first = self.first or snapshot.checkpoint
        self.epochs += 1


def _resumed() -> dict[str, Any]:
    """A training that only the first process resumes, as only that one has callbacks that read and write."""
    settings, checkpoints = config(epochs=2), Checkpoints()
    callbacks = [checkpoints] if distributed.rank() == 0 else []
    whole = _trained(settings, *callbacks)
    torch.manual_seed(distributed.rank())
    return {"whole": whole, "again": _trained(settings, *callbacks), "epochs": checkpoints.epochs}


def _threads() -> int:
    return torch.get_num_threads()


def _addresses() -> list[str]:
    """Where the processes, and the one that started them, listen."""
    found = [c.laddr.ip for c in psutil.Process().net_connections("inet") if c.status == psutil.CONN_LISTEN]
    if distributed.rank() == 0 and distributed.size() > 1:
        above = psutil.Process().parent().net_connections("inet")
        found += [c.laddr.ip for c in above if c.status == psutil.CONN_LISTEN]
    return [address for each in _of_all(found) for address in each]


def _of_all(value: Any) -> list[Any]:
    values = [value] * distributed.size()
    if distributed.size() > 1:
        dist.all_gather_object(values, value)
    return values


def fail_in_the_second() -> None:
    """The others wait for it."""
    if distributed.rank() == 1:
        raise ConfigError("what is wrong")
    distributed.total(torch.ones(1))


def lose_the_second() -> None:
    if distributed.rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    distributed.total(torch.ones(1))


def wait(folder: str) -> None:
    """Leave a file named like one's process id, then wait; on being told to stop, write that one cleaned up."""
    distributed.total(torch.ones(1))
    note = Path(folder) / f"{os.getpid()}"
    note.touch()
    try:
        time.sleep(300)
    finally:
        note.with_suffix(".cleaned").touch()
