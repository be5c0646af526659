"""The head learns first, on features that are computed once; the backbone does not notice."""

import dataclasses

import pytest
import torch
from torch import nn

from cifar_tasks.config import TrainConfig, configure
from cifar_tasks.models import ImageClassifier, build_classifier
from cifar_tasks.training import Split, TrainingState, fit, head_config, head_features, predict_logits, score
from cifar_tasks.training.augment import steps_per_epoch

GREY = (0.5, 0.5, 0.5)


def config(**changes) -> TrainConfig:
    wanted = {"batch_size": 16, "head_epochs": 3, "head_learning_rate": 1e-3, **changes}
    return dataclasses.replace(configure("resnet50", "demo", {}), **wanted)


def classifier() -> ImageClassifier:
    torch.manual_seed(0)
    return build_classifier(config(), 10, GREY, GREY)


@pytest.fixture(scope="module")
def split() -> Split:
    random = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (64, 32, 32, 3), dtype=torch.uint8, generator=random)
    return Split(images, torch.randint(0, 10, (64,), generator=random))


class HeadOnFrozenBackbone(nn.Module):
    """The slow way: features are computed anew for every batch."""

    def __init__(self, model: ImageClassifier) -> None:
        super().__init__()
        self.head, self.model = model.network.fc, [model]  # in a list: not among the parameters

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(head_features(self.model[0], images))


def train_head(head: nn.Module, settings: TrainConfig, train: Split) -> TrainingState:
    state = TrainingState(head, settings, steps_per_epoch(len(train.labels), settings))
    fit(state, train, train, lambda state: None, lambda progress: None)
    return state


def test_cached_and_recomputed_features_give_the_same_head(split):
    cached, recomputed = classifier(), classifier()
    features = Split(head_features(cached, split.images), split.labels)
    fast = train_head(cached.network.fc, head_config(config()), features)
    slow = train_head(HeadOnFrozenBackbone(recomputed), head_config(config()), split)
    for name, weight in cached.network.fc.state_dict().items():
        assert torch.allclose(weight, recomputed.network.fc.state_dict()[name], atol=1e-4), name
    assert fast.best.validation_loss == pytest.approx(slow.best.validation_loss, abs=1e-4)
    assert fast.history[-1].train_loss < fast.history[0].train_loss


def test_the_backbone_does_not_move_while_the_head_learns(split):
    model = classifier()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    train_head(model.network.fc, head_config(config()), Split(head_features(model, split.images), split.labels))
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {f"network.fc.{name}" for name in model.network.fc.state_dict()}


def test_what_the_head_learnt_is_what_the_whole_network_answers(split):
    model = classifier()
    features = head_features(model, split.images)
    state = train_head(model.network.fc, head_config(config()), Split(features, split.labels))
    loss, _ = score(predict_logits(model.eval(), split.images), split.labels)
    assert loss == pytest.approx(state.best.validation_loss, rel=0.02)  # features may be bfloat16's


def test_the_whole_network_overfits_64_images(split):
    plain = {"crop_padding": 0, "flip": "off", "label_smoothing": 0.0, "weight_decay": 0.0}
    settings = config(epochs=9, patience=9, batch_size=32, **plain)
    state = TrainingState(classifier(), settings, steps_per_epoch(64, settings))
    accuracies = []
    fit(state, split, split, lambda s: accuracies.append(s.history[-1].train_accuracy), lambda progress: None)
    assert max(accuracies) == 1.0
