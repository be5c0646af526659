"""A network with its preprocessing: what is trained, saved, evaluated and served is one module."""

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from cifar_tasks.config import TrainConfig
from cifar_tasks.errors import ConfigError, WeightsError
from cifar_tasks.models.registry import get_model
from cifar_tasks.models.spec import Channels


class ImageClassifier(nn.Module):
    """uint8 images (N, S, S, 3) in, logits (N, classes) out.

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
        input_size: int = 0,
        logit_scale: float = 1.0,
        one_size: bool = False,
        interpolation: str = "bilinear",
    ) -> None:
        """Smaller images are upsampled to `input_size`; with `one_size` larger ones are reduced to it too."""
        super().__init__()
        self.network = network
        self.input_size = input_size
        self.one_size = one_size
        self.interpolation = interpolation
        self.logit_scale = logit_scale
        # Not parameters and not part of the state: they are configuration.
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1) * 255, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(self.prepare(images)) * self.logit_scale
        return logits

    def prepare(self, images: Tensor) -> Tensor:
        """uint8 images as the network takes them: float32 (N, 3, S, S), with S `input_size` or more."""
        # The permuted view of (N, H, W, C) already is channels_last, the faster layout for convolutions.
        x = (images.permute(0, 3, 1, 2).to(self.mean.dtype) - self.mean) / self.std
        size, wanted = images.shape[1], self.input_size
        if size < wanted or (self.one_size and size > wanted):
            x = F.interpolate(x, size=(wanted, wanted), mode=self.interpolation, antialias=size > wanted)
        return x


def build_classifier(config: TrainConfig, classes: int, mean: Channels, std: Channels) -> ImageClassifier:
    """The untrained module for `config`; `ConfigError` for a network that cannot be trained.

    `mean` and `std`, of values 0–1, are those of the training images.

    A model whose weights were trained with another normalisation takes that one instead; a network of timm tells it,
    and the input size and the interpolation that it was trained with.
    """
    spec = get_model(config.model)
    network, size, one_size, interpolation = spec.build(config, classes), config.input_size or 0, False, "bilinear"
    if published := getattr(network, "pretrained_cfg", None):
        mean, std, one_size = published["mean"], published["std"], published["fixed_input_size"]
        interpolation = published["interpolation"]
        if config.input_size is None or (one_size and not size):
            size = published["input_size"][-1]
    mean, std = spec.normalization or (mean, std)
    model = ImageClassifier(network, mean, std, size, config.logit_scale, one_size, interpolation)
    try:
        return model.to(memory_format=torch.channels_last)
    except RuntimeError as error:  # channels_last is not for weights with five dimensions
        raise ConfigError(f"{spec.name} cannot be trained in channels_last layout: choose another network.") from error


def load_pretrained(model: ImageClassifier, config: TrainConfig, path: Path, report: Callable[[str], None]) -> None:
    """Load the tensors in `path`, whose digest the caller has verified, into all of the network but its head.

    Raises `WeightsError` if they are not those of this network: one is missing, too much, or of another shape.
    """
    spec = get_model(config.model)
    head = f"{spec.head(model.network)}."
    try:
        state = read_tensors(path)
        state = spec.pretrained.read(config, state) if spec.pretrained else state
        body = {name: value for name, value in state.items() if not name.startswith(head)}
        missing, unexpected = model.network.load_state_dict(body, strict=False)
    except Exception as error:  # torch.load raises whatever the damage leads to
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise WeightsError(f"{path} does not hold the weights of {spec.name}: {reason}") from error
    wrong = [*(name for name in missing if not name.startswith(head)), *unexpected]
    if wrong:
        raise WeightsError(f"{path} does not hold the weights of {spec.name}: {wrong[:3]} do not match.")
    report(f"{spec.name}: pretrained weights loaded from {path.name}")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """A state dict from safetensors, or from a file of `torch.save`: a file from outside never runs code."""
    with path.open("rb") as file:
        is_safetensors = file.read(9)[8:] == b"{"  # the length of the header, then the header as JSON
    state: dict[str, Tensor] = (
        load_file(path) if is_safetensors else torch.load(path, map_location="cpu", weights_only=True)
    )
    return state


def check_export(model: ImageClassifier, name: str, image_size: int) -> None:
    """`ConfigError` if the model of this name cannot become the exported program that is saved after the training."""
    example = torch.zeros(2, image_size, image_size, 3, dtype=torch.uint8, device=model.mean.device)
    was_training = model.training
    try:
        torch.export.export(model.eval(), (example,), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    except Exception as error:  # the exporter raises whatever a network's code leads to
        raise ConfigError(
            f"{name} cannot be exported by torch.export, so that it could not be saved after its training: "
            f"{(str(error) or type(error).__name__).splitlines()[0]} Choose another model."
        ) from error
    finally:
        model.train(was_training)


def count_parameters(model: nn.Module) -> dict[str, int]:
    """Parameters as Keras counts them: `trainable`, `not_trainable` (running statistics), and their `total`."""
    trainable = sum(p.numel() for p in model.parameters())
    statistics = sum(b.numel() for name, b in model.named_buffers() if name.endswith(("running_mean", "running_var")))
    return {"trainable": trainable, "not_trainable": statistics, "total": trainable + statistics}


def summarise(model: ImageClassifier, image_size: int) -> str:
    """The report's figures 2 and 4: one row per layer with output shape and parameters."""
    from torchinfo import summary

    example = torch.zeros(1, image_size, image_size, 3, dtype=torch.uint8)
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
