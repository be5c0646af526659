"""The report's VGG-style CNN, layer by layer."""

from collections import OrderedDict
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

from cifar_tasks.config import AugmentationConfig, OptimizerConfig, TrainConfig, with_values
from cifar_tasks.models.spec import ModelSpec

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from torch import nn

WIDTHS = (92, 184, 368)
POOLED = 4
"""Pixels per side before the dense layer; at 32-pixel images the convolutions leave just these."""


def build(config: TrainConfig, classes: int) -> "nn.Module":
    """Three blocks of two 3×3 convolutions, each followed by ReLU and batch norm, then one dense layer.

    Takes float images (N, 3, S, S) and returns logits (N, classes). 2,429,270 parameters with 10 classes, 2,576 of
    them running statistics of the batch norms, which PyTorch keeps as buffers. With `hidden_units` a dense layer of
    that width comes before the last one; the report has none.
    """
    from torch import nn

    # The features first: the order of the layers is that of the random numbers for their weights.
    features = nn.Sequential(*(layer for widths in pairwise((3, *WIDTHS)) for layer in _block(*widths, config)))
    inputs = WIDTHS[-1] * POOLED**2
    hidden = [nn.Linear(inputs, config.hidden_units), nn.ReLU(inplace=True)] if config.hidden_units else []
    return nn.Sequential(
        OrderedDict(
            features=features,
            pool=nn.AdaptiveAvgPool2d(POOLED),
            classifier=nn.Sequential(nn.Flatten(), *hidden, nn.Linear(config.hidden_units or inputs, classes)),
        )
    )


def _block(before: int, width: int, config: TrainConfig) -> "list[nn.Module]":
    from torch import nn

    layers: list[nn.Module] = []
    for channels in (before, width):
        layers += [nn.Conv2d(channels, width, kernel_size=3, padding=1), nn.ReLU(inplace=True), nn.BatchNorm2d(width)]
    return [*layers, nn.MaxPool2d(2), nn.Dropout(config.dropout)]


def search_space() -> "dict[str, BaseDistribution]":
    """The report's three, then the recipe's own.

    The report searched rates of 2e-5–4e-2, for Adam; the upper end here leaves room for this recipe's SGD.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    return {
        "hidden_units": IntDistribution(0, 126, step=18),  # 0: no such layer, as in the report's CNN
        "weight_decay": FloatDistribution(3e-6, 8e-3, log=True),
        "learning_rate": FloatDistribution(2e-5, 0.5, log=True),
        "label_smoothing": FloatDistribution(0.0, 0.2),
        "dropout": FloatDistribution(0.0, 0.4),
        "crop_padding": IntDistribution(0, 4),
        "batch_size": CategoricalDistribution((64, 128, 256, 512)),
        "warmup_fraction": FloatDistribution(0.05, 0.4),
    }


FULL = TrainConfig(
    model="cnn",
    epochs=12,
    batch_size=256,
    logit_scale=1 / 9,
    optimizer=OptimizerConfig(
        optimizer="muon", learning_rate=0.12, weight_decay=5e-3, warmup_fraction=0.1, sam_radius=0.1, sam_share=2 / 3
    ),
    augmentation=AugmentationConfig(crop_padding=3),
)
"""12 epochs instead of the report's 100; docs/training-log.md has the effect of each part."""

DEMO = with_values(
    replace(FULL, epochs=4, batch_size=128, train_images=6_000, validation_images=2_000), {"sam_radius": 0.0}
)
"""Minutes on two CPU cores."""

SPEC = ModelSpec(
    name="cnn",
    title="VGG-style CNN",
    description="The report's CNN of six convolutions, trained from scratch.",
    builder="cifar_tasks.models.builtin.cnn:build",
    recipes={"demo": DEMO, "full": FULL},
    search_space=search_space,
    stages=(("features",), ("classifier",)),
    in_default_run=True,
)
