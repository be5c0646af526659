"""What the product needs to know of a network before it is built: one `ModelSpec` per model, without torch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import TYPE_CHECKING

from cifar_tasks.config import PRETRAINED_ONLY, PROFILES, Overrides, Profile, TrainConfig, with_values
from cifar_tasks.errors import ConfigError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from torch import nn

Channels = tuple[float, float, float]
"""A value for red, green and blue."""


@dataclass(frozen=True)
class PretrainedWeights:
    """A state dict to download, and what its bytes must be."""

    url: str
    sha256: str
    """Of the file, or the first digits of it where its publisher tells no more."""


@dataclass(frozen=True)
class ModelSpec:
    """One model. A package of your own offers it through the entry point group `cifar_pipeline.models`."""

    name: str
    """As the form, the command line and MLflow show it."""
    title: str
    description: str
    """One sentence for the form and for `--help`."""
    builder: str
    """`package.module:function`, which makes the network: (TrainConfig, number of classes) → `nn.Module` that takes
    normalised float32 images (N, 3, S, S) and returns logits (N, classes)."""
    recipes: Mapping[Profile, TrainConfig]
    search_space: Callable[[], "dict[str, BaseDistribution]"]
    """Names of `config.flat` → the values that a search tries."""
    stages: tuple[tuple[str, ...], ...]
    """Names of the network's layers from the image to the head, grouped by how fast they train (`stage_decay`)."""
    normalization: tuple[Channels, Channels] | None = None
    """Mean and standard deviation of values 0–1; none for those of the training images."""
    pretrained: PretrainedWeights | None = None
    """Weights of all stages but the last one, which is the head."""
    in_default_run: bool = False
    """Whether a run trains it when no model is named."""

    @property
    def head(self) -> str:
        """Name of the layer that is trained alone in `head_epochs`."""
        return self.stages[-1][0]

    def config(self, profile: str, overrides: Overrides = Overrides()) -> TrainConfig:  # noqa: B008 – immutable
        """The recipe with the overrides that concern this model; `ConfigError` for a value that does not fit."""
        if profile not in PROFILES:
            raise ConfigError(f"profile must be {' or '.join(PROFILES)}, got {profile!r}")
        ignored = set() if self.pretrained else PRETRAINED_ONLY
        given = {name: value for name, value in overrides.given().items() if name not in ignored}
        return with_values(self.recipes[profile], given)

    def build(self, config: TrainConfig, classes: int) -> "nn.Module":
        """The network with random weights; `ConfigError` if a layer of it is in no stage."""
        network: nn.Module = resolve_name(self.builder)(config, classes)
        for name, _ in network.named_parameters():
            self.stages_to_head(name)
        return network

    def stages_to_head(self, parameter: str) -> int:
        """How many stages lie between this parameter of the network and the head's own."""
        layers = {layer: number for number, stage in enumerate(self.stages) for layer in stage}
        for layer, number in layers.items():
            if parameter.startswith(f"{layer}."):
                return len(self.stages) - 1 - number
        raise ConfigError(f"model {self.name}: {parameter} is in none of its stages: {', '.join(layers)}.")
