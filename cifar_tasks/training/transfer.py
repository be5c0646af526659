"""Transfer learning's first half: a head on a backbone that stays as it is.

A frozen backbone answers the same in every epoch, so its features are computed once and the head learns from them.
"""

from dataclasses import replace

import torch
from torch import Tensor

from cifar_tasks.config import TrainConfig
from cifar_tasks.models import ImageClassifier, backbone_of
from cifar_tasks.training.device import autocast

BATCH = 250
"""Images whose features are computed at once."""


def head_config(config: TrainConfig) -> TrainConfig:
    """How the head alone is trained; nothing is augmented, because its features are computed once."""
    return replace(
        config,
        epochs=config.head_epochs,
        learning_rate=config.head_learning_rate,
        crop_padding=0,
        flip="off",
        head_epochs=0,
    )


def without_transfer(config: TrainConfig) -> TrainConfig:
    """How the same model is trained from random weights: all of it at once and at one rate, for no stage knows more."""
    return replace(config, head_epochs=0, stage_decay=1.0)


@torch.no_grad()
def head_features(model: ImageClassifier, images: Tensor) -> Tensor:
    """What the head of a ResNet50 sees of uint8 images (N, H, W, C): float32 (N, 2048), on the model's device.

    Computed in evaluation mode: the backbone's batch norm uses its running statistics and leaves them alone.
    """
    backbone = backbone_of(model.network).eval()
    device = model.mean.device
    with autocast(device):
        batches = (batch.to(device) for batch in torch.split(images, BATCH))
        return torch.cat([backbone(model.prepare(batch)).float() for batch in batches])
