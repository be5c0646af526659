"""Networks of timm (PyTorch Image Models) by name, `timm/resnet18.a1_in1k`: known without torch, built with it."""

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from cifar_tasks.config import (
    AugmentationConfig,
    OptimizerConfig,
    Profile,
    StoppingConfig,
    TrainConfig,
    TransferConfig,
    with_values,
)
from cifar_tasks.errors import ConfigError, WeightsError
from cifar_tasks.models.spec import ModelSpec, PretrainedWeights

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from torch import Tensor, nn

PREFIX = "timm/"
STAGE_DECAY = 0.8
NAMES = "timm_names.txt"
"""Beside this module: a line per architecture, its name and then the tags of its pretrained weights. Where the form is
checked there is no timm; a test compares the file with the installed one."""


@cache
def timm_names() -> frozenset[str]:
    """All names, with the prefix: each architecture alone, for its default weights, and with each of its tags."""
    found = set[str]()
    for line in files(__package__).joinpath(NAMES).read_text("utf-8").splitlines():
        architecture, *tags = line.split()
        found |= {f"{PREFIX}{architecture}", *(f"{PREFIX}{architecture}.{tag}" for tag in tags)}
    return frozenset(found)


def names_of_timm() -> str:
    """What the file must hold for the timm that is installed."""
    import timm

    tags: dict[str, list[str]] = {name: [] for name in timm.list_models()}
    for name in timm.list_pretrained():
        architecture, _, tag = name.partition(".")
        tags[architecture] += [tag] if tag else []
    return "".join(f"{' '.join([name, *sorted(tags[name])])}\n" for name in sorted(tags))


def recipes(model: str) -> dict[Profile, TrainConfig]:
    """By profile, as measured with EfficientNet-Lite0; docs/training-log.md has what was tried.

    `full` has few epochs, little patience and one rate for all stages. `demo` takes two minutes on a CPU core: it
    trains the last stages alone, which is quick, and they learn more from many images than the whole network does from
    the few that there would be time for.
    """
    full = TrainConfig(
        model=model,
        epochs=4,
        batch_size=64,
        input_size=160,
        optimizer=OptimizerConfig(optimizer="adamw", learning_rate=1e-3, weight_decay=0.02),
        augmentation=AugmentationConfig(crop_padding=4),
        transfer=TransferConfig(pretrained="required", head_epochs=3),
        stopping=StoppingConfig(patience=2),
    )
    in_demo = {
        "epochs": 2,
        "head_epochs": 0,
        "trained_stages": 2,
        "input_size": 96,
        "train_images": 12_000,
        "validation_images": 2_000,
    }
    return {"demo": with_values(full, in_demo), "full": full}


def search_space() -> "dict[str, BaseDistribution]":
    """Rates around the recipe's; AdamW needs a larger weight decay."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    return {
        "weight_decay": FloatDistribution(3e-6, 0.1, log=True),
        "learning_rate": FloatDistribution(2e-5, 1e-2, log=True),
        "head_learning_rate": FloatDistribution(3e-4, 1e-2, log=True),
        "stage_decay": FloatDistribution(0.5, 1.0),
        "label_smoothing": FloatDistribution(0.0, 0.2),
        "dropout": FloatDistribution(0.0, 0.4),
        "crop_padding": IntDistribution(0, 4),
        "batch_size": CategoricalDistribution((32, 64, 128, 256)),
    }


def timm_spec(name: str) -> ModelSpec:
    """Of a name that is one of `timm_names`. In `full` the stages near the image learn more slowly, as is usual."""
    own = recipes(name)
    own["full"] = with_values(own["full"], {"input_size": None, "stage_decay": STAGE_DECAY})
    return ModelSpec(
        name=name,
        title=name,
        description=f"{name.removeprefix(PREFIX)} of timm with its pretrained weights.",
        builder=f"{__name__}:build",
        recipes=own,
        search_space=search_space,
        stages=(),
        pretrained=PretrainedWeights(name, "", reader=f"{__name__}:read"),
    )


def build(config: TrainConfig, classes: int) -> "nn.Module":
    """The network of `config.model` with random weights."""
    return build_network(config.model.removeprefix(PREFIX), config, classes)


def build_network(name: str, config: TrainConfig, classes: int) -> "nn.Module":
    """timm's network of this name with a head for `classes`; `ConfigError` if timm has none, or not for images of
    `input_size`."""
    try:
        network: nn.Module = _create(name, config, drop_rate=config.dropout)
        network.reset_classifier(classes)  # type: ignore[operator]
    except Exception as error:  # a network's own code raises whatever does not fit
        reason, own = (str(error) or type(error).__name__).splitlines()[0], own_size(name)
        if _img_size(name, config) in (None, own):
            raise ConfigError(f"timm cannot build {name}, choose another network: {reason}") from error
        raise ConfigError(
            f"timm cannot build {name} for an input size of {config.input_size} pixels: "
            f"{reason} Set input_size to its own, {own}."
        ) from error
    return network


def own_size(name: str) -> int:
    """Pixels per side that the published weights were trained at."""
    import timm

    published: Any = timm.get_pretrained_cfg(name)
    return int(published.input_size[-1])


def _img_size(name: str, config: TrainConfig) -> int | None:
    """The input size that the network is built for; none for its own, and where it takes images of any size."""
    import timm

    published: Any = timm.get_pretrained_cfg(name)
    return config.input_size or None if published.fixed_input_size else None


def _create(name: str, config: TrainConfig, **more: Any) -> Any:
    import timm

    if size := _img_size(name, config):
        more["img_size"] = size
    return timm.create_model(name, **more)


def read(config: TrainConfig, state: "dict[str, Tensor]") -> "dict[str, Tensor]":
    """The tensors of a published file by the names and in the shapes of the network that `config` describes.

    timm's own rules say what changes: names of other projects, position embeddings of another input size.
    """
    # Strict, because the head is the published one: a tensor that is missing, too much or of another shape raises.
    overlay = {"state_dict": state}
    network = _create(config.model.removeprefix(PREFIX), config, pretrained=True, pretrained_cfg_overlay=overlay)
    loaded: dict[str, Tensor] = network.state_dict()
    return loaded


def published_at(name: str) -> tuple[str, str]:
    """Repository and file of the weights on the Hugging Face hub; the file is empty where timm does not name one.

    `WeightsError` if timm publishes none there.
    """
    import timm

    published: Any = timm.get_pretrained_cfg(name.removeprefix(PREFIX))
    if published is None or not published.hf_hub_id:
        raise WeightsError(
            f"timm publishes no weights of {name} on the Hugging Face hub. Name a file or s3:// URL and its SHA-256 in "
            "CIFAR_PRETRAINED_WEIGHTS, or choose pretrained = none."
        )
    return str(published.hf_hub_id), str(published.hf_hub_filename or "")
