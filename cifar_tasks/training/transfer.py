"""Transfer learning: the head learns first, on pretrained stages that stay as they are, then the whole network.

Stages that stay the same give the same features in every epoch, so these are computed once and the head learns from
them.
"""

import logging
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cifar_tasks.config import TrainConfig, with_values
from cifar_tasks.models import get_model
from cifar_tasks.models.classifier import ImageClassifier
from cifar_tasks.training import distributed
from cifar_tasks.training.augment import steps_per_epoch
from cifar_tasks.training.callbacks import Callback
from cifar_tasks.training.device import autocast, images_at_once
from cifar_tasks.training.loop import Split, started, train_epochs
from cifar_tasks.training.state import TrainingState

BATCH = 250
"""Images of CIFAR-10 whose features are computed at once."""

_log = logging.getLogger(__name__)


def fit_classifier(
    model: ImageClassifier, config: TrainConfig, train: Split, validation: Split, callbacks: Sequence[Callback] = ()
) -> TrainingState:
    """Train `model`: for `head_epochs` its head alone, then all of it; the best weights are in `model` afterwards.

    A callback may resume each of the two parts in `on_train_start`. The head does not train again once the whole
    network has finished an epoch.
    """
    state = TrainingState(distributed.synchronised(model), config, steps_per_epoch(len(train.images), config))
    with started(state, callbacks):
        if config.transfer.head_epochs and not state.history:
            _fit_head(model, config, train, validation, callbacks)
            state.model.load_state_dict(model.state_dict())
        train_epochs(state, train, validation, callbacks)
    model.load_state_dict(state.model.state_dict())
    return state


def _fit_head(
    model: ImageClassifier, config: TrainConfig, train: Split, validation: Split, callbacks: Sequence[Callback]
) -> None:
    name, alone = get_model(config.model).head(model.network), head_config(config)
    head = Head(model.network.get_submodule(name), model.logit_scale)
    state = TrainingState(head, alone, steps_per_epoch(len(train.images), alone), label="head_")
    with started(state, callbacks):
        if not state.finished:
            _log.info("computing the features of %d images once", len(train.images) + len(validation.images))
            train, validation = (Split(head_features(model, name, s.images), s.labels) for s in (train, validation))
        train_epochs(state, train, validation, callbacks)


class Head(nn.Module):
    """The last layer of a classifier: features in, logits out."""

    def __init__(self, layer: nn.Module, logit_scale: float) -> None:
        super().__init__()
        self.layer, self.logit_scale = layer, logit_scale

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.layer(features) * self.logit_scale
        return logits


def head_config(config: TrainConfig) -> TrainConfig:
    """How the head alone is trained: at one rate, and without augmentation, because its features are computed once."""
    transfer = config.transfer
    values = {"epochs": transfer.head_epochs, "learning_rate": transfer.head_learning_rate, "head_epochs": 0}
    return with_values(config, {**values, "stage_decay": 1.0, "crop_padding": 0, "flip": False})


def without_transfer(config: TrainConfig) -> TrainConfig:
    """How the same model is trained from random weights: all stages at once and at one rate."""
    return with_values(config, {"head_epochs": 0, "stage_decay": 1.0})


@torch.no_grad()
def head_features(model: ImageClassifier, head: str, images: Tensor) -> Tensor:
    """What the layer `head` of the network gets of uint8 images (N, H, W, C): float32 (N, …), on the model's device.

    Computed in evaluation mode: batch norm uses its running statistics and leaves them alone.
    """
    features: list[Tensor] = []
    hook = (
        model.eval()
        .network.get_submodule(head)
        .register_forward_pre_hook(lambda _, inputs: features.append(inputs[0].float()))
    )
    device = model.mean.device
    try:
        with autocast(device):
            for batch in torch.split(images, images_at_once(images, BATCH)):
                model(batch.to(device))
    finally:
        hook.remove()
    return torch.cat(features)
