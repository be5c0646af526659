"""A network with its preprocessing: what is trained, saved, evaluated and served is one module."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cifar_tasks.config import TrainConfig
from cifar_tasks.models.cnn import VGGStyleCNN
from cifar_tasks.models.resnet50 import build_resnet50

Channels = tuple[float, float, float]
"""A value for red, green and blue."""

IMAGENET_MEAN: Channels = (0.485, 0.456, 0.406)
IMAGENET_STD: Channels = (0.229, 0.224, 0.225)


class ImageClassifier(nn.Module):
    """uint8 images (N, 32, 32, 3) in, logits (N, classes) out.

    Scaling to 0–1, normalisation and upsampling happen inside, so that training, evaluation and a serving client
    cannot disagree about them (the report's second defect).
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        mean: Channels,
        std: Channels,
        image_size: int = 32,
        logit_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.network = network
        self.image_size = image_size
        self.logit_scale = logit_scale
        # Not parameters and not part of the state: they are configuration.
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1) * 255, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(self.prepare(images)) * self.logit_scale
        return logits

    def prepare(self, images: Tensor) -> Tensor:
        """uint8 images as the network takes them: float32 (N, 3, S, S)."""
        # The permuted view of (N, H, W, C) already is channels_last, the faster layout for convolutions.
        x = (images.permute(0, 3, 1, 2).to(self.mean.dtype) - self.mean) / self.std
        if self.image_size != images.shape[1]:
            x = F.interpolate(x, size=(self.image_size, self.image_size), mode="bilinear", antialias=False)
        return x


def build_classifier(config: TrainConfig, classes: int, mean: Channels, std: Channels) -> ImageClassifier:
    """The untrained module for `config`; `mean` and `std` (of values 0–1) are those of the training images.

    ResNet50 takes ImageNet's instead: that is what its weights were trained with.
    """
    if config.model == "cnn":
        network: nn.Module = VGGStyleCNN(classes, config.dropout, config.hidden_units)
    else:
        network, mean, std = build_resnet50(classes, config.hidden_units), IMAGENET_MEAN, IMAGENET_STD
    model = ImageClassifier(network, mean, std, config.image_size, config.logit_scale)
    return model.to(memory_format=torch.channels_last)


def count_parameters(model: nn.Module) -> dict[str, int]:
    """Parameters as Keras counts them: `trainable`, `not_trainable` (running statistics), and their `total`."""
    trainable = sum(p.numel() for p in model.parameters())
    statistics = sum(b.numel() for name, b in model.named_buffers() if name.endswith(("running_mean", "running_var")))
    return {"trainable": trainable, "not_trainable": statistics, "total": trainable + statistics}


def summarise(model: ImageClassifier) -> str:
    """The report's figures 2 and 4: a row a layer with output shape and parameters."""
    from torchinfo import summary

    example = torch.zeros(1, 32, 32, 3, dtype=torch.uint8)
    return str(
        summary(
            model,
            input_data=[example],
            col_names=("output_size", "num_params"),
            row_settings=("var_names",),
            depth=5,
            verbose=0,
        )
    )
