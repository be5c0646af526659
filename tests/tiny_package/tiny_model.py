"""Somebody's own model: a network of three layers, in one file."""

from collections import OrderedDict

from cifar_tasks.config import OptimizerConfig, TrainConfig
from cifar_tasks.models import ModelSpec


def build(config: TrainConfig, classes: int):
    from torch import nn

    width = config.hidden_units
    layers = OrderedDict(
        conv1=nn.Conv2d(3, width, 3, stride=2, padding=1),
        relu1=nn.ReLU(),
        conv2=nn.Conv2d(width, width, 3, stride=2, padding=1),
        relu2=nn.ReLU(),
        pool=nn.AdaptiveAvgPool2d(2),
        flat=nn.Flatten(),
        dense=nn.Linear(4 * width, classes),
    )
    return nn.Sequential(layers)


def search_space():
    from optuna.distributions import FloatDistribution

    return {"learning_rate": FloatDistribution(1e-3, 1e-1, log=True)}


RECIPE = TrainConfig(
    model="tiny",
    epochs=3,
    batch_size=32,
    hidden_units=16,
    optimizer=OptimizerConfig(optimizer="adamw", learning_rate=1e-2, weight_decay=1e-4),
)
SPEC = ModelSpec(
    name="tiny",
    title="Tiny network",
    description="Three layers from another package.",
    builder="tiny_model:build",
    recipes={"demo": RECIPE, "full": RECIPE},
    search_space=search_space,
    stages=(("conv1",), ("conv2",), ("dense",)),
)
