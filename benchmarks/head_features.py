"""ResNet50's head on a frozen backbone: its features computed once, or again in every epoch."""

from torch import Tensor, nn

from benchmarks.measure import Row, interleaved, rate
from benchmarks.training_speed import GREY, random_split
from cifar_tasks.config import TrainConfig, with_values
from cifar_tasks.models import get_model
from cifar_tasks.models.classifier import ImageClassifier, build_classifier
from cifar_tasks.training.augment import steps_per_epoch
from cifar_tasks.training.loop import Split, fit
from cifar_tasks.training.state import TrainingState
from cifar_tasks.training.transfer import compute_features, head_config

IMAGES = 256
EPOCHS = 10
SIDE = 64
"""Pixels. The weights are random, which speed does not depend on."""
HEAD = "fc"


class OnFrozenBackbone(nn.Module):
    """The head as an ordinary loop trains it: uint8 images in, features computed again, logits out."""

    def __init__(self, model: ImageClassifier) -> None:
        super().__init__()
        self.model = [model]  # in a list, so that the backbone's parameters and modes are none of this module's
        self.head = model.network.get_submodule(HEAD)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(compute_features(self.model[0], HEAD, images))
        return logits


def measure(rounds: int) -> list[Row]:
    values = {"head_epochs": EPOCHS, "input_size": SIDE, "patience": EPOCHS, "batch_size": 64}
    config = head_config(with_values(get_model("resnet50").recipes["full"], values))
    model = build_classifier(config, 10, *GREY)
    train, validation = random_split(IMAGES), random_split(2)

    def cached() -> None:
        splits = (Split(compute_features(model, HEAD, part.images), part.labels) for part in (train, validation))
        _fit(model.network.get_submodule(HEAD), config, *splits)

    def recomputed() -> None:
        _fit(OnFrozenBackbone(model), config, train, validation)

    candidates = {"cached": rate(EPOCHS * IMAGES, cached), "recomputed": rate(EPOCHS * IMAGES, recomputed)}
    figures = interleaved(candidates, rounds, "ResNet50 head")
    both = {"features once": f"{figures['cached']:.0f}", "every epoch": f"{figures['recomputed']:.0f} images/s"}
    return [Row(f"{EPOCHS} epochs of ResNet50's head", both, figures.ratio("cached", "recomputed"), 5)]


def _fit(network: nn.Module, config: TrainConfig, train: Split, validation: Split) -> None:
    state = TrainingState(network, config, steps_per_epoch(len(train.labels), config))
    fit(state, train, validation)
