"""What a training is told: one frozen configuration, named recipes, and the overrides that a user may give.

A recipe is a function. The bounds of the overrides stand here once; the trigger form, the command line and the check
in `configure` all read them from here.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from cifar_tasks.errors import ConfigError
from cifar_tasks.storage.s3 import canonical_json, sha256_hex

ModelName = Literal["cnn", "resnet50"]
Profile = Literal["demo", "full"]
MODELS: tuple[ModelName, ...] = ("cnn", "resnet50")


@dataclass(frozen=True)
class TrainConfig:
    """All that decides how one model is trained, apart from the data."""

    model: ModelName
    """Which network."""
    epochs: int
    """Passes over the training images, at most: early stopping may end sooner."""
    batch_size: int
    """Images a step."""
    learning_rate: float
    """Peak of the one-cycle schedule."""
    optimizer: Literal["sgd", "adamw", "muon"]
    """SGD and Muon have Nesterov momentum. Muon takes the filters of all convolutions but the first, SGD the rest."""
    weight_decay: float
    """On convolution and dense weights only, never on biases and batch norm."""
    label_smoothing: float = 0.1
    """Share of the target spread over all classes."""
    logit_scale: float = 1.0
    """Factor on the logits. The CNN's dense layer has 5,888 inputs and diverges early without a small one."""
    stage_decay: float = 1.0
    """Factor on the learning rate from each of ResNet50's stages to the one before it."""
    head_epochs: int = 0
    """Epochs in which ResNet50's head learns alone, on features of the ImageNet weights; before all others."""
    head_learning_rate: float = 1e-3
    """Peak in these epochs."""
    warmup_fraction: float = 0.25
    """Share of the steps in which the learning rate rises."""
    sam_radius: float = 0.0
    """Distance in weight space over which sharpness-aware minimisation wants the loss to be low; 0 for none."""
    sam_images: int = 64
    """Images of a batch that look for the highest loss together; batch norm too sees so many at once."""
    sam_share: float = 1 / 3
    """Share of the epochs, the last ones, that it is used in; their steps cost twice as much."""
    hidden_units: int = 0
    """Width of a dense layer before the CNN's last one, 0 for none; of the first dense layer of ResNet50's head."""
    dropout: float = 0.0
    """After each block of the CNN; it costs more than it gives where each image is seen a dozen times."""
    crop_padding: int = 2
    """Pixels of reflected border from which random crops are taken; 0 for none."""
    flip: Literal["on", "off"] = "on"
    """Mirror images left to right, each image in every second epoch; wrong for digits and text."""
    image_size: int = 32
    """Pixels that images are upsampled to on the device, before ResNet50."""
    pretrained: Literal["required", "preferred", "none"] = "none"
    """ImageNet weights: without them fail, or go on with random ones and say so, or never use them."""
    patience: int = 5
    """Epochs without a lower validation loss after which training stops."""
    train_images: int | None = None
    """Train on a stratified sample of so many images; none for all."""
    validation_images: int | None = None
    """Validate on a stratified sample of so many images; none for all."""
    seed: int = 0
    """Of initialisation, order, augmentation and dropout."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "patience", "image_size", "sam_images"):
            _at_least(name, getattr(self, name), 1)
        for name in ("crop_padding", "seed", "weight_decay", "head_epochs", "hidden_units", "sam_radius"):
            _at_least(name, getattr(self, name), 0)
        if not 0 <= self.sam_share <= 1:
            raise ConfigError(f"sam_share must be between 0 and 1, got {self.sam_share}")
        if not self.learning_rate > 0:
            raise ConfigError(f"learning_rate must be above 0, got {self.learning_rate}")
        if self.model == "resnet50":
            _at_least("hidden_units", self.hidden_units, 2)
        if self.model == "cnn" and self.image_size != 32:
            raise ConfigError(f"image_size is for resnet50; the CNN takes 32-pixel images, got {self.image_size}")

    def digest(self) -> str:
        return sha256_hex(canonical_json(asdict(self)))


def cnn_demo() -> TrainConfig:
    """Minutes on two CPU cores."""
    return replace(cnn_full(), epochs=4, train_images=6_000, validation_images=2_000, batch_size=128, sam_radius=0)


def cnn_full() -> TrainConfig:
    """12 epochs instead of the report's 100; what each ingredient gave stands in docs/training-log.md."""
    return TrainConfig(
        model="cnn",
        epochs=12,
        batch_size=256,
        learning_rate=0.12,
        optimizer="muon",
        weight_decay=5e-3,
        logit_scale=1 / 9,
        warmup_fraction=0.1,
        crop_padding=3,
        sam_radius=0.1,
        sam_share=2 / 3,
    )


def resnet50_demo() -> TrainConfig:
    """Shows the mechanics in minutes on two CPU cores: small images, few of them, and random weights if it must be."""
    return replace(
        resnet50_full(),
        epochs=2,
        head_epochs=2,
        image_size=32,
        train_images=3_000,
        validation_images=2_000,
        pretrained="preferred",
        batch_size=64,
        learning_rate=1e-3,
    )


def resnet50_full() -> TrainConfig:
    """ImageNet weights at 224 pixels, few epochs, little patience: the report's own advice. For a GPU."""
    return TrainConfig(
        model="resnet50",
        epochs=7,
        head_epochs=3,
        hidden_units=1024,
        stage_decay=0.65,
        patience=2,
        batch_size=128,
        learning_rate=3e-4,
        optimizer="adamw",
        weight_decay=0.05,
        crop_padding=4,
        image_size=224,
        pretrained="required",
    )


def trial_config(config: TrainConfig, profile: str) -> TrainConfig:
    """A shorter training by the same recipe, for each trial of a search."""
    images, held_out = (1_500, 500) if profile == "demo" else (15_000, 5_000)
    return replace(
        config,
        epochs=min(config.epochs, 4),
        head_epochs=min(config.head_epochs, 1),
        train_images=min(config.train_images or images, images),
        validation_images=min(config.validation_images or held_out, held_out),
    )


RECIPES: dict[tuple[ModelName, Profile], Callable[[], TrainConfig]] = {
    ("cnn", "demo"): cnn_demo,
    ("cnn", "full"): cnn_full,
    ("resnet50", "demo"): resnet50_demo,
    ("resnet50", "full"): resnet50_full,
}


@dataclass(frozen=True)
class Override:
    """A value of the recipe that the user may replace."""

    type: Literal["integer", "number", "string"]
    title: str
    description: str
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    only_for: ModelName | None = None
    """The one model that it concerns; none for all."""


AS_RECIPE = "recipe"
"""Spelling of "no override" where a value must be chosen from a list."""

OVERRIDES: dict[str, Override] = {
    "epochs": Override("integer", "Epochs", "Passes over the training images, at most.", 1, 1000),
    "batch_size": Override("integer", "Batch size", "Images a step.", 2, 4096),
    "learning_rate": Override("number", "Learning rate", "Peak of the one-cycle schedule.", 1e-6, 10.0),
    "image_size": Override(
        "integer", "Image size (ResNet50)", "Pixels that images are upsampled to.", 32, 512, only_for="resnet50"
    ),
    "pretrained": Override(
        "string",
        "ImageNet weights (ResNet50)",
        "required: fail without them. preferred: else go on with random ones and say so. none: always random ones.",
        choices=("required", "preferred", "none"),
        only_for="resnet50",
    ),
    "flip": Override(
        "string", "Mirror images", "Left to right, in training. Wrong for digits and text.", choices=("on", "off")
    ),
    "seed": Override("integer", "Seed", "Of initialisation, order, augmentation and dropout.", 0, 2**31 - 1),
}


def chosen_models(models: str) -> tuple[ModelName, ...]:
    """`both`, `cnn` or `resnet50` as the models to train."""
    if models == "both":
        return MODELS
    for name in MODELS:
        if name == models:
            return (name,)
    raise ConfigError(f"models must be one of both, {', '.join(MODELS)}, got {models!r}")


def configure(model: ModelName, profile: str, overrides: Mapping[str, Any]) -> TrainConfig:
    """The recipe of `model` and `profile` with the overrides that concern it; `None` and `AS_RECIPE` change nothing."""
    recipe = next((make for key, make in RECIPES.items() if key == (model, profile)), None)
    if recipe is None:
        raise ConfigError(f"profile must be demo or full, got {profile!r}")
    given = {name: value for name, value in overrides.items() if value not in (None, AS_RECIPE)}
    for name, value in given.items():
        _check_override(name, value)
    return replace(recipe(), **{name: v for name, v in given.items() if OVERRIDES[name].only_for in (None, model)})


def parse_overrides(pairs: Iterable[str]) -> dict[str, int | float | str]:
    """`NAME=VALUE` as a value of the type that the recipe wants; `ConfigError` names what does not fit."""
    values: dict[str, int | float | str] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or name not in OVERRIDES:
            raise ConfigError(f"--set {pair}: write NAME=VALUE with NAME one of {', '.join(OVERRIDES)}")
        kind = OVERRIDES[name].type
        try:
            values[name] = {"integer": int, "number": float, "string": str}[kind](text)
        except ValueError:
            raise ConfigError(f"--set {pair}: {name} must be of type {kind}") from None
    return values


def config_from_dict(values: Mapping[str, Any]) -> TrainConfig:
    """The inverse of `dataclasses.asdict`; refuses a name that is no field."""
    unknown = values.keys() - {field.name for field in fields(TrainConfig)}
    if unknown:
        raise ConfigError(f"a training has no setting {sorted(unknown)[0]!r}")
    return TrainConfig(**values)


def _check_override(name: str, value: Any) -> None:
    rule = OVERRIDES.get(name)
    if rule is None:
        raise ConfigError(f"{name!r} cannot be overridden; these can: {', '.join(OVERRIDES)}")
    kinds: dict[str, tuple[type, ...]] = {
        "integer": (int,),
        "number": (int, float),
        "string": (str,),
    }
    if not isinstance(value, kinds[rule.type]) or isinstance(value, bool):
        raise ConfigError(f"{name} must be of type {rule.type}, got {value!r}")
    if rule.choices and value not in rule.choices:
        raise ConfigError(f"{name} must be one of {', '.join(rule.choices)}, got {value!r}")
    low, high = rule.minimum, rule.maximum
    if low is not None and high is not None and isinstance(value, int | float) and not low <= value <= high:
        raise ConfigError(f"{name} must be between {low:g} and {high:g}, got {value}")


def _at_least(name: str, value: float, minimum: float) -> None:
    if value < minimum:
        raise ConfigError(f"{name} must be at least {minimum:g}, got {value}")
