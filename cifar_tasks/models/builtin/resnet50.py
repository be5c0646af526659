"""ResNet50 with ImageNet weights and the report's head."""

from typing import TYPE_CHECKING

from cifar_tasks.config import (
    AugmentationConfig,
    OptimizerConfig,
    StoppingConfig,
    TrainConfig,
    TransferConfig,
    with_values,
)
from cifar_tasks.errors import ConfigError
from cifar_tasks.models.spec import ModelSpec, PretrainedWeights

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from torch import nn

FEATURES = 2048
"""What ResNet50 leaves of an image after global average pooling."""
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def build(config: TrainConfig, classes: int) -> "nn.Module":
    """torchvision's ResNet50, its top replaced by dense 1024, dense 512 and dense `classes`.

    Takes normalised float images (N, 3, S, S) and returns logits (N, classes). 26,136,138 trainable parameters with
    10 classes; Keras, which the report used, counts 26,560 convolution biases more. Other `hidden_units` change the
    two hidden layers of the head in proportion.
    """
    from torch import nn
    from torchvision.models import resnet50

    hidden = config.hidden_units
    if hidden < 2:
        raise ConfigError(f"hidden_units must be at least 2 for resnet50, got {hidden}")
    network: nn.Module = resnet50(weights=None)
    network.fc = nn.Sequential(
        nn.Linear(FEATURES, hidden),
        nn.ReLU(inplace=True),
        nn.Linear(hidden, hidden // 2),
        nn.ReLU(inplace=True),
        nn.Linear(hidden // 2, classes),
    )
    return network


def search_space() -> "dict[str, BaseDistribution]":
    """As for the CNN; AdamW needs a larger weight decay, and there is no dropout."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    return {
        "hidden_units": IntDistribution(128, 2048, log=True),
        "weight_decay": FloatDistribution(3e-6, 0.1, log=True),
        "learning_rate": FloatDistribution(2e-5, 4e-2, log=True),
        "label_smoothing": FloatDistribution(0.0, 0.2),
        "crop_padding": IntDistribution(0, 4),
        "batch_size": CategoricalDistribution((32, 64, 128, 256)),
        "warmup_fraction": FloatDistribution(0.05, 0.4),
    }


FULL = TrainConfig(
    model="resnet50",
    epochs=7,
    batch_size=128,
    hidden_units=1024,
    input_size=224,
    optimizer=OptimizerConfig(optimizer="adamw", learning_rate=3e-4, weight_decay=0.05),
    augmentation=AugmentationConfig(crop_padding=4),
    transfer=TransferConfig(pretrained="required", head_epochs=3, stage_decay=0.65),
    stopping=StoppingConfig(patience=2),
)
"""ImageNet weights at 224 pixels, few epochs, little patience: the report's own advice. For a GPU."""

DEMO = with_values(
    FULL,
    {
        "epochs": 2,
        "head_epochs": 0,
        "trained_stages": 1,
        "input_size": 64,
        "train_images": 6_000,
        "validation_images": 2_000,
        "pretrained": "if_available",
        "batch_size": 64,
        "learning_rate": 1e-3,
    },
)
"""Minutes on two CPU cores: small images, few of them. Skipped where the weights are not available."""

SPEC = ModelSpec(
    name="resnet50",
    title="ResNet50",
    description="torchvision's ResNet50 with ImageNet weights and the report's head.",
    builder="cifar_tasks.models.builtin.resnet50:build",
    recipes={"demo": DEMO, "full": FULL},
    search_space=search_space,
    stages=(("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("layer4",), ("fc",)),
    normalization=IMAGENET,
    # torchvision's ResNet50_Weights.IMAGENET1K_V2
    pretrained=PretrainedWeights(
        "https://download.pytorch.org/models/resnet50-11ad3fa6.pth",
        "11ad3fa62ca79e40addfd354a8ec4b7c75143b3038b8d2a807fbc68deab379ca",
    ),
    in_default_run=True,
)
