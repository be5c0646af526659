"""What the product needs to know of a network before it is built: one `ModelSpec` per model, without torch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import TYPE_CHECKING

from cifar_tasks.config import PRETRAINED_ONLY, PROFILES, Overrides, Profile, TrainConfig, with_values
from cifar_tasks.errors import ConfigError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from torch import Tensor, nn

Channels = tuple[float, float, float]
"""A value for red, green and blue."""


@dataclass(frozen=True)
class PretrainedWeights:
    """A state dict, where it comes from, and what its bytes must be."""

    url: str
    """`https://…`, `package:NAME/path` for a file of an installed package, or `timm/NAME` for what timm publishes on
    the Hugging Face hub."""
    sha256: str
    """Of the file, or the first digits of it where its publisher tells no more; none for the hub, which tells it."""
    reader: str | None = None
    """`package.module:function`: (TrainConfig, tensors of the file) → tensors by the names of the network with the
    head that they were trained with. None where they are that already."""

    def read(self, config: TrainConfig, state: "dict[str, Tensor]") -> "dict[str, Tensor]":
        """The tensors of the file by the names of the network."""
        if self.reader is None:
            return state
        named: dict[str, Tensor] = resolve_name(self.reader)(config, state)
        return named


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
    """Names of the network's layers from the image to the head, grouped by how fast they train (`stage_decay`).
    Empty for a network of timm, which knows them itself."""
    normalization: tuple[Channels, Channels] | None = None
    """Mean and standard deviation of values 0–1; none for those of the training images."""
    pretrained: PretrainedWeights | None = None
    """Weights of all stages but the last one, which is the head."""
    in_default_run: bool = False
    """Whether a run trains it when no model is named."""

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
        self.stages_to_head(network)
        return network

    def head(self, network: "nn.Module") -> str:
        """Name of the layer that is trained alone in `head_epochs`."""
        if self.stages:
            return self.stages[-1][0]
        name = network.pretrained_cfg["classifier"]  # type: ignore[index]  # of timm
        if not isinstance(name, str):
            raise ConfigError(f"model {self.name} has not one head but {len(name or ())}: choose another network.")
        return name

    def stages_to_head(self, network: "nn.Module") -> dict[str, int]:
        """Parameter of the network → how many stages lie between its own and the head's."""
        if not self.stages:
            return _stages_of_timm(self.name, network, self.head(network))
        stages = {layer: number for number, stage in enumerate(self.stages) for layer in stage}
        found: dict[str, int] = {}
        for name, _ in network.named_parameters():
            layer = next((layer for layer in stages if name.startswith(f"{layer}.")), None)
            if layer is None:
                raise ConfigError(f"model {self.name}: {name} is in none of its stages: {', '.join(stages)}.")
            found[name] = len(self.stages) - 1 - stages[layer]
        return found


def _stages_of_timm(name: str, network: "nn.Module", head: str) -> dict[str, int]:
    """By timm's own grouping for layer-wise learning rates; the coarse one has a group per stage, not per block."""
    from timm.models import group_parameters

    try:
        matcher = network.group_matcher(coarse=True)  # type: ignore[operator]
    except (AttributeError, AssertionError) as error:  # some networks have none, or none by stages
        raise ConfigError(f"timm does not say what the stages of {name} are: choose another network.") from error
    groups = group_parameters(network, matcher, reverse=True)
    body = {layer: number for layer, number in groups.items() if not layer.startswith(f"{head}.")}
    deepest = {number: depth for depth, number in enumerate(sorted(set(body.values()), reverse=True), 1)}
    return {layer: deepest[body[layer]] if layer in body else 0 for layer, _ in network.named_parameters()}
