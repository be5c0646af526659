"""What decides how a model is trained: one frozen configuration in parts, and the values that a user may override.

The recipes of a model are in its own file (`cifar_tasks.models`).
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields, is_dataclass, replace
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic.dataclasses import dataclass

from cifar_tasks.errors import ConfigError, nearest, problems

Profile = Literal["demo", "full"]
PROFILES: tuple[Profile, ...] = get_args(Profile)
Resize = Literal["crop", "squash", "pad"]
"""How an image becomes square (`data.ImageFormat`)."""
RESIZES: tuple[Resize, ...] = get_args(Resize)
StartFrom = Literal["recipe", "champion"]
"""The weights that a training starts from: those of the recipe (random or pretrained), or the champion's."""
STARTS: tuple[StartFrom, ...] = get_args(StartFrom)
MIN_IMAGE_SIZE, MAX_IMAGE_SIZE = 16, 512
"""Pixels per side of prepared images."""

_MODEL_NAME = r"[A-Za-z0-9][A-Za-z0-9 _.\-]{0,99}"


def is_model_name(value: str) -> bool:
    return bool(re.fullmatch(_MODEL_NAME, value))


def _model_name(value: str) -> str:
    if not is_model_name(value):
        raise ValueError("give 1 to 100 letters, digits, spaces, '.', '_' or '-', a letter or digit first")
    return value


def form_schema(pattern: str) -> WithJsonSchema:
    """Of a text, for the trigger form, which knows patterns but not functions."""
    return WithJsonSchema({"type": "string", "pattern": f"^({pattern})$"})


RegisteredModelName = Annotated[str, AfterValidator(_model_name), form_schema(_MODEL_NAME)]
"""A name in the MLflow model registry."""


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
    """Distance in weight space over which sharpness-aware minimisation keeps the loss low; 0 for none."""
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
    """How training uses pretrained weights. With random ones only `pretrained` has an effect."""

    pretrained: Literal["required", "if_available", "none"] = "none"
    """`required`: fail without them. `if_available`: else the run skips the model. `none`: random weights."""
    head_epochs: int = 0
    """Epochs before all others in which the head trains alone, on features of the pretrained layers."""
    head_learning_rate: float = 1e-3
    """Peak in these epochs."""
    stage_decay: float = 1.0
    """Factor on the learning rate from each stage of the network to the one before it."""
    trained_stages: int | None = None
    """Stages before the head, the last ones, that train; none for all. The others keep their pretrained weights: what
    they give is computed once, of images without augmentation."""

    def __post_init__(self) -> None:
        _at_least(self, 0, "head_epochs", *(["trained_stages"] if self.trained_stages is not None else []))


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
    input_size: int | None = 0
    """Smaller images are upsampled to this many pixels per side on the device; 0 for no upsampling, none for the size
    that the pretrained weights were trained at, where the network tells it."""
    hidden_units: int = 0
    """Width of the model's adjustable dense layer; 0 for none where the model allows that."""
    dropout: float = 0.0
    """Share of activations dropped after each block."""
    train_images: int | None = None
    """Train on a sample of this many images, of each class in proportion; none for all."""
    validation_images: int | None = None
    """Validate on a sample of this many images, of each class in proportion; none for all."""
    seed: int = 0
    """Of initialisation, order, augmentation and dropout."""

    def __post_init__(self) -> None:
        _at_least(self, 1, "epochs", "batch_size")
        _at_least(self, 0, "seed", "hidden_units", *(["input_size"] if self.input_size is not None else []))


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


AS_RECIPE = "recipe"
"""Spelling of "no override" where the form needs a choice from a list."""
PRETRAINED_ONLY = {"input_size", "pretrained"}
"""Overrides that models without pretrained weights ignore."""


class Overrides(BaseModel):
    """Values of a recipe that the user may replace, by the names of `flat`; none keeps the recipe's.

    The trigger form and the command line take titles, texts and bounds from here.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    epochs: int | None = Field(default=None, ge=1, le=1000, title="Epochs")
    """Passes over the training images, at most."""
    batch_size: int | None = Field(default=None, ge=2, le=4096, title="Batch size")
    """Images per step."""
    learning_rate: float | None = Field(default=None, ge=1e-6, le=10.0, title="Learning rate")
    """Peak of the one-cycle schedule."""
    input_size: int | None = Field(default=None, ge=0, le=512, title="Input size (pretrained models)")
    """Smaller images are upsampled to this many pixels per side. 0: no upsampling. For networks with pretrained weights
    only."""
    pretrained: Literal["required", "if_available", "none"] | None = Field(default=None, title="Pretrained weights")
    """required: fail without them. if_available: skip the model without them. none: random weights. For networks with
    pretrained weights only."""
    flip: bool | None = Field(default=None, title="Mirror images")
    """Mirror training images left to right. Wrong for digits and text."""
    seed: int | None = Field(default=None, ge=0, le=2**31 - 1, title="Seed")
    """Of initialisation, order, augmentation and dropout."""

    @model_validator(mode="before")
    @classmethod
    def _from_form(cls, values: Any) -> Any:
        """The form spells a choice that keeps the recipe's value `recipe`, and a boolean `on` or `off`."""
        spelled = {AS_RECIPE: None, "on": True, "off": False}
        return {name: spelled.get(value, value) if isinstance(value, str) else value for name, value in values.items()}

    def given(self) -> dict[str, Any]:
        """What is overridden."""
        return self.model_dump(exclude_none=True)

    def as_form(self) -> dict[str, Any]:
        """What is overridden, as the form spells it."""
        return {name: ("off", "on")[v] if isinstance(v, bool) else v for name, v in self.given().items()}


def parse_overrides(pairs: Iterable[str]) -> Overrides:
    """From `NAME=VALUE`; `ConfigError` has a line for each pair that does not fit."""
    values: dict[str, str] = {}
    wrong = []
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or name not in Overrides.model_fields:
            names = ", ".join(Overrides.model_fields)
            meant = nearest(name, Overrides.model_fields)
            wrong.append(f"--set {pair}: write NAME=VALUE with NAME one of {names}{meant}")
        elif name in values:
            wrong.append(f"--set {pair}: {name} is set twice")
        else:
            values[name] = value
    try:
        overrides = Overrides.model_validate_strings(values)
    except ValidationError as error:
        wrong += problems(error, lambda name: f"--set {name}")
    if wrong:
        raise ConfigError("\n".join(wrong))
    return overrides
