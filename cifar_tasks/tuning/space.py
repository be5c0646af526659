"""What is searched: for each model its parameters, their types and their bounds."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from cifar_tasks.config import ModelName, TrainConfig

Space = dict[str, BaseDistribution]
"""Field of `TrainConfig` → the values that it may take."""


def cnn_space() -> Space:
    """The report's three, then the recipe's own.

    The report searched rates of 2e-5–4e-2, for Adam; the upper end here leaves room for this recipe's SGD.
    """
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


def resnet50_space() -> Space:
    """As for the CNN; decay is AdamW's, which wants more of it, and there is no dropout."""
    return {
        "hidden_units": IntDistribution(128, 2048, log=True),
        "weight_decay": FloatDistribution(3e-6, 0.1, log=True),
        "learning_rate": FloatDistribution(2e-5, 4e-2, log=True),
        "label_smoothing": FloatDistribution(0.0, 0.2),
        "crop_padding": IntDistribution(0, 4),
        "batch_size": CategoricalDistribution((32, 64, 128, 256)),
        "warmup_fraction": FloatDistribution(0.05, 0.4),
    }


SPACES: dict[ModelName, Callable[[], Space]] = {"cnn": cnn_space, "resnet50": resnet50_space}


def recipe_parameters(config: TrainConfig, space: Space) -> dict[str, Any]:
    """The recipe as a point of the space; a value outside of it is moved to the nearest bound."""
    return {name: _nearest(getattr(config, name), values) for name, values in space.items()}


def apply(config: TrainConfig, parameters: Mapping[str, Any]) -> TrainConfig:
    return replace(config, **parameters)


def _nearest(value: Any, values: BaseDistribution) -> Any:
    if isinstance(values, IntDistribution | FloatDistribution):
        return min(max(value, values.low), values.high)
    assert isinstance(values, CategoricalDistribution)  # noqa: S101
    return min(values.choices, key=lambda choice: abs(float(choice or 0) - value))
