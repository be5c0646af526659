"""A model's search space as Optuna samples it, and the recipe as a point in it."""

from collections.abc import Collection, Mapping
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import Trial

from cifar_tasks.config import TrainConfig, flat
from cifar_tasks.models import get_model

Space = dict[str, BaseDistribution]
"""Names of `config.flat` → the values that a search tries."""


def free_space(model: str, fixed: Collection[str]) -> Space:
    """The model's search space without the hyperparameters that the user has set."""
    return {name: values for name, values in get_model(model).search_space().items() if name not in fixed}


def suggest(trial: Trial, space: Space) -> dict[str, Any]:
    """A value for each hyperparameter, from the study's sampler or from the queue."""
    for name, values in space.items():
        if isinstance(values, FloatDistribution):
            trial.suggest_float(name, values.low, values.high, step=values.step, log=values.log)
        elif isinstance(values, IntDistribution):
            trial.suggest_int(name, values.low, values.high, step=values.step, log=values.log)
        elif isinstance(values, CategoricalDistribution):
            trial.suggest_categorical(name, values.choices)
    return trial.params


def recipe_params(config: TrainConfig, space: Space) -> dict[str, Any]:
    """The recipe as a point of the space; a value outside of it is moved to the nearest bound."""
    values = flat(config)
    return {name: _nearest(values[name], allowed) for name, allowed in space.items()}


def _nearest(value: Any, allowed: BaseDistribution) -> Any:
    if isinstance(allowed, IntDistribution | FloatDistribution):
        return min(max(value, allowed.low), allowed.high)
    assert isinstance(allowed, CategoricalDistribution)  # noqa: S101
    return min(allowed.choices, key=lambda choice: abs(float(choice or 0) - value))


def format_params(params: Mapping[str, Any]) -> str:
    """`dropout 0.1, learning_rate 0.03`, with three digits."""
    return ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in params.items()
    )
