"""A model's search space as Optuna samples it, and the recipe as a point in it."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import Trial

from cifar_tasks.config import TrainConfig, TransferConfig, flat
from cifar_tasks.models import get_model

Space = dict[str, BaseDistribution]
"""Names of `config.flat` → the values that a search tries."""


def free_space(config: TrainConfig, fixed: Collection[str] = (), warm: bool = False) -> Space:
    """The model's search space without the hyperparameters that the user has set, and without those that trainings by
    `config` do not use: what they sample would count as found.

    A `warm` start takes the weights of the champion, with their shapes, and its head is trained already.
    """
    left_out = {*fixed, *_not_searched(config.transfer, warm)}
    return {name: values for name, values in get_model(config.model).search_space().items() if name not in left_out}


def _not_searched(transfer: TransferConfig, warm: bool) -> Iterator[str]:
    """See `training.transfer`: stages that stay the same give features of images without augmentation."""
    if warm:
        yield "hidden_units"
    random = transfer.pretrained == "none" and not warm
    if random or warm or not transfer.head_epochs:
        yield "head_learning_rate"
    if random or transfer.trained_stages is not None:
        yield "stage_decay"
    if not random and transfer.trained_stages is not None:
        yield "crop_padding"


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
