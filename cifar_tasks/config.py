"""What decides how a model is trained: one frozen configuration in parts, and the values that a user may override.

The recipes of a model stand with the model (`cifar_tasks.models`). The bounds of the overrides stand here once: the
trigger form, the command line and the check in `override` read them from here.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields, is_dataclass, replace
from typing import Any, Literal, get_args

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from cifar_tasks.errors import ConfigError

Profile = Literal["demo", "full"]
PROFILES: tuple[Profile, ...] = get_args(Profile)
Resize = Literal["crop", "squash", "pad"]
"""How an image becomes square (`data.ImageFormat`)."""
RESIZES: tuple[Resize, ...] = get_args(Resize)
MIN_IMAGE_SIZE, MAX_IMAGE_SIZE = 16, 512
"""Pixels per side of prepared images."""

_FROZEN = ConfigDict(extra="forbid")


def _at_least(part: Any, minimum: float, *names: str) -> None:
    for name in names:
        if getattr(part, name) < minimum:
            raise ConfigError(f"{name} must be at least {minimum:g}, got {getattr(part, name)}")


@dataclass(frozen=True, config=_FROZEN)
class OptimizerConfig:
    """How the weights move."""

    optimizer: Literal["sgd", "adamw", "muon"]
    """SGD and Muon have Nesterov momentum. Muon takes the filters of all convolutions but the first, SGD the rest."""
    learning_rate: float
    """Peak of the one-cycle schedule."""
    weight_decay: float
    """On convolution and dense weights only, never on biases and batch norm."""
    warmup_fraction: float = 0.25
    """Share of the steps in which the learning rate rises."""
    sam_radius: float = 0.0
    """Distance in weight space over which sharpness-aware minimisation wants the loss to be low; 0 for none."""
    sam_images: int = 64
    """Images of a batch that share one perturbation; batch norm sees as many at once."""
    sam_share: float = 1 / 3
    """Share of the epochs, the last ones, that use it; their steps cost twice as much."""

    def __post_init__(self) -> None:
        _at_least(self, 1, "sam_images")
        _at_least(self, 0, "weight_decay", "sam_radius")
        if not 0 <= self.sam_share <= 1:
            raise ConfigError(f"sam_share must be between 0 and 1, got {self.sam_share}")
        if not self.learning_rate > 0:
            raise ConfigError(f"learning_rate must be above 0, got {self.learning_rate}")


@dataclass(frozen=True, config=_FROZEN)
class AugmentationConfig:
    """How training images differ from epoch to epoch."""

    crop_padding: int = 2
    """Pixels of reflected border from which random crops are taken; 0 for none."""
    flip: bool = True
    """Mirror images left to right, each image in every second epoch; wrong for digits and text."""

    def __post_init__(self) -> None:
        _at_least(self, 0, "crop_padding")


@dataclass(frozen=True, config=_FROZEN)
class TransferConfig:
    """How training uses pretrained weights. Without them only `pretrained` has an effect."""

    pretrained: Literal["required", "preferred", "none"] = "none"
    """`required`: fail without them. `preferred`: else use random weights and say so. `none`: always random ones."""
    head_epochs: int = 0
    """Epochs before all others in which the head trains alone, on features of the pretrained layers."""
    head_learning_rate: float = 1e-3
    """Peak in these epochs."""
    stage_decay: float = 1.0
    """Factor on the learning rate from each stage of the network to the one before it."""

    def __post_init__(self) -> None:
        _at_least(self, 0, "head_epochs")


@dataclass(frozen=True, config=_FROZEN)
class StoppingConfig:
    """When training ends before its last epoch."""

    patience: int = 5
    """Epochs without a lower validation loss after which training stops."""

    def __post_init__(self) -> None:
        _at_least(self, 1, "patience")


@dataclass(frozen=True, config=_FROZEN)
class TrainConfig:
    """All that decides how one model is trained, apart from the data."""

    model: str
    """Name of a `ModelSpec`."""
    epochs: int
    """Passes over the training images, at most: early stopping may end sooner."""
    batch_size: int
    """Images per step."""
    optimizer: OptimizerConfig
    augmentation: AugmentationConfig = AugmentationConfig()
    transfer: TransferConfig = TransferConfig()
    stopping: StoppingConfig = StoppingConfig()
    label_smoothing: float = 0.1
    """Share of the target spread over all classes."""
    logit_scale: float = 1.0
    """Factor on the logits. The CNN's dense layer has 5,888 inputs and diverges early without a small one."""
    input_size: int = 0
    """Smaller images are upsampled to this many pixels per side on the device; 0 for none."""
    hidden_units: int = 0
    """Width of the model's adjustable dense layer; 0 for none where the model allows that."""
    dropout: float = 0.0
    """Share of activations dropped after each block."""
    train_images: int | None = None
    """Train on a random sample of this many images; none for all."""
    validation_images: int | None = None
    """Validate on a random sample of this many images; none for all."""
    seed: int = 0
    """Of initialisation, order, augmentation and dropout."""

    def __post_init__(self) -> None:
        _at_least(self, 1, "epochs", "batch_size")
        _at_least(self, 0, "seed", "hidden_units", "input_size")


_PARTS = {part.name: part.type for part in fields(TrainConfig) if is_dataclass(part.type)}


def flat(config: TrainConfig) -> dict[str, Any]:
    """All values by the name of their field, whatever part they stand in: field names are unique."""
    values = asdict(config)
    return {name: value for name, value in values.items() if name not in _PARTS} | {
        name: value for part in _PARTS for name, value in values[part].items()
    }


def with_values(config: TrainConfig, values: Mapping[str, Any]) -> TrainConfig:
    """`config` with other values, by the same names as in `flat`; `ConfigError` for an unknown name."""
    changed, left = {}, dict(values)
    for part, kind in _PARTS.items():
        names = {field.name for field in fields(kind)} & left.keys()
        changed[part] = replace(getattr(config, part), **{name: left.pop(name) for name in names})
    if unknown := left.keys() - {field.name for field in fields(TrainConfig)}:
        raise ConfigError(f"a training has no setting {min(unknown)!r}")
    return replace(config, **changed, **left)


def trial_config(config: TrainConfig, profile: Profile) -> TrainConfig:
    """A shorter training by the same recipe, for each trial of a search."""
    images, held_out = (1_500, 500) if profile == "demo" else (15_000, 5_000)
    return with_values(
        config,
        {
            "epochs": min(config.epochs, 4),
            "head_epochs": min(config.transfer.head_epochs, 1),
            "train_images": min(config.train_images or images, images),
            "validation_images": min(config.validation_images or held_out, held_out),
        },
    )


@dataclass(frozen=True)
class Override:
    """A value of the recipe that the user may replace."""

    type: Literal["integer", "number", "boolean", "string"]
    title: str
    description: str
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    pretrained_only: bool = False
    """Whether it concerns only models that have pretrained weights."""


OVERRIDES: dict[str, Override] = {
    "epochs": Override("integer", "Epochs", "Passes over the training images, at most.", 1, 1000),
    "batch_size": Override("integer", "Batch size", "Images per step.", 2, 4096),
    "learning_rate": Override("number", "Learning rate", "Peak of the one-cycle schedule.", 1e-6, 10.0),
    "input_size": Override(
        "integer",
        "Input size (pretrained models)",
        "Smaller images are upsampled to this many pixels per side. 0: none.",
        0,
        512,
        pretrained_only=True,
    ),
    "pretrained": Override(
        "string",
        "Pretrained weights",
        "required: fail without them. preferred: else use random ones and say so. none: always random ones.",
        choices=("required", "preferred", "none"),
        pretrained_only=True,
    ),
    "flip": Override(
        "boolean",
        "Mirror images",
        "Left to right, in training. Wrong for digits and text.",
        choices=("on", "off"),
    ),
    "seed": Override("integer", "Seed", "Of initialisation, order, augmentation and dropout.", 0, 2**31 - 1),
}
AS_RECIPE = "recipe"
"""Spelling of "no override" where the form needs a choice from a list."""


def parse_overrides(pairs: Iterable[str]) -> dict[str, int | float | str | bool]:
    """`NAME=VALUE` as a value of the type that the recipe wants; `ConfigError` names what does not fit."""
    values: dict[str, int | float | str | bool] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or name not in OVERRIDES:
            raise ConfigError(f"--set {pair}: write NAME=VALUE with NAME one of {', '.join(OVERRIDES)}")
        kind = OVERRIDES[name].type
        try:
            values[name] = {"integer": int, "number": float, "string": str, "boolean": str}[kind](text)
        except ValueError:
            raise ConfigError(f"--set {pair}: {name} must be of type {kind}") from None
    return check_overrides(values)


def as_form(values: Mapping[str, Any]) -> dict[str, Any]:
    """Overrides as the trigger form spells them: a boolean is a choice of on and off there."""
    return {name: ("off", "on")[value] if isinstance(value, bool) else value for name, value in values.items()}


def check_overrides(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that override something, checked: `None` and `AS_RECIPE` do not, and `on` and `off` are booleans."""
    given = {name: value for name, value in values.items() if value not in (None, AS_RECIPE)}
    return {name: _checked(name, value) for name, value in given.items()}


def override(config: TrainConfig, values: Mapping[str, Any], *, has_pretrained: bool) -> TrainConfig:
    """The recipe with the overrides that concern its model; `ConfigError` names field and value that do not fit."""
    given = check_overrides(values)
    concerned = {name: v for name, v in given.items() if has_pretrained or not OVERRIDES[name].pretrained_only}
    return with_values(config, concerned)


def _checked(name: str, value: Any) -> Any:
    rule = OVERRIDES.get(name)
    if rule is None:
        raise ConfigError(f"{name!r} cannot be overridden; these can: {', '.join(OVERRIDES)}")
    if rule.type == "boolean":
        value = {"on": True, "off": False}.get(value, value) if isinstance(value, str) else value
        if not isinstance(value, bool):
            raise ConfigError(f"{name} must be on or off, got {value!r}")
        return value
    kinds: dict[str, tuple[type, ...]] = {"integer": (int,), "number": (int, float), "string": (str,)}
    if not isinstance(value, kinds[rule.type]) or isinstance(value, bool):
        raise ConfigError(f"{name} must be of type {rule.type}, got {value!r}")
    if rule.choices and value not in rule.choices:
        raise ConfigError(f"{name} must be one of {', '.join(rule.choices)}, got {value!r}")
    low, high = rule.minimum, rule.maximum
    if low is not None and high is not None and isinstance(value, int | float) and not low <= value <= high:
        raise ConfigError(f"{name} must be between {low:g} and {high:g}, got {value}")
    return value
