"""ResNet50 with the report's head, and its ImageNet weights."""

import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import torch
from torch import nn
from torchvision.models import ResNet50_Weights, resnet50

from cifar_tasks.errors import ConfigError, WeightsError
from cifar_tasks.storage.s3 import S3Store, split_s3_url

FEATURES = 2048
"""What ResNet50 leaves of an image after global average pooling."""
HIDDEN_UNITS = 1024
"""Width of the head's first dense layer in the report; the second is half as wide."""


def build_resnet50(classes: int = 10, hidden_units: int = HIDDEN_UNITS) -> nn.Module:
    """torchvision's ResNet50, its top replaced by dense 1024, dense 512 and dense `classes`.

    Takes normalised float images (N, 3, S, S) and returns logits (N, classes). 26,136,138 trainable parameters with
    10 classes; Keras, which the report used, counts 26,560 convolution biases more. Other `hidden_units` change the
    two hidden layers of the head in proportion.
    """
    network: nn.Module = resnet50(weights=None)
    network.fc = nn.Sequential(
        nn.Linear(FEATURES, hidden_units),
        nn.ReLU(inplace=True),
        nn.Linear(hidden_units, hidden_units // 2),
        nn.ReLU(inplace=True),
        nn.Linear(hidden_units // 2, classes),
    )
    return network


def backbone_of(network: nn.Module) -> nn.Module:
    """All of a ResNet50 but its head, with the same parameters: (N, 3, S, S) in, features (N, 2048) out."""
    return nn.Sequential(*(layer for name, layer in network.named_children() if name != "fc"), nn.Flatten())


def load_imagenet_weights(
    network: nn.Module, source: str | None, sha256: str | None, report: Callable[[str], None]
) -> str:
    """Load ImageNet weights into everything but the head; returns the SHA-256 of the file they came from.

    `source` is a file, an `s3://` URL, or none for torchvision's own download, which checks the hash in its file name.
    Raises `WeightsError` when they cannot be had or are not the expected ones.
    """
    path = _local_file(source, report) if source else _torchvision_file(report)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if source:
        if sha256 is None:
            raise ConfigError(f"weights from {source} need their SHA-256: set CIFAR_RESNET50_WEIGHTS_SHA256={digest}")
        if digest != sha256:
            raise WeightsError(
                f"the weights at {source} have SHA-256 {digest}, expected {sha256}. Fetch the file again, or correct "
                "CIFAR_RESNET50_WEIGHTS_SHA256."
            )
    # weights_only: a file from outside never runs code.
    state = torch.load(path, map_location="cpu", weights_only=True)
    backbone = {name: value for name, value in state.items() if not name.startswith("fc.")}
    try:
        missing, unexpected = network.load_state_dict(backbone, strict=False)
    except RuntimeError as error:
        raise WeightsError(f"the weights in {path} are not a ResNet50's: {error}") from error
    missing = [name for name in missing if not name.startswith("fc.")]
    if missing or unexpected:
        raise WeightsError(f"the weights in {path} are not a ResNet50's: {[*missing, *unexpected][:3]} do not match.")
    report(f"ImageNet weights loaded (SHA-256 {digest[:12]}…)")
    return digest


def _torchvision_file(report: Callable[[str], None]) -> Path:
    weights = ResNet50_Weights.IMAGENET1K_V2
    report(f"fetching the ImageNet weights of ResNet50 ({weights.url})")
    try:
        weights.get_state_dict(check_hash=True, progress=False)
    except (URLError, OSError, RuntimeError) as error:
        raise WeightsError(
            f"the ImageNet weights of ResNet50 cannot be had from {weights.url} ({error}). Set CIFAR_RESNET50_WEIGHTS "
            "to a file or s3:// URL and CIFAR_RESNET50_WEIGHTS_SHA256 to its digest, or choose pretrained = none."
        ) from error
    return Path(torch.hub.get_dir()) / "checkpoints" / str(weights.url).rsplit("/", 1)[-1]


def _local_file(source: str, report: Callable[[str], None]) -> Path:
    if not source.startswith("s3://"):
        path = Path(source).expanduser()
        if not path.is_file():
            raise WeightsError(f"there are no weights at {path}. Correct CIFAR_RESNET50_WEIGHTS.")
        return path
    bucket, key = split_s3_url(source)
    path = Path(torch.hub.get_dir()) / "checkpoints" / key.rsplit("/", 1)[-1]
    report(f"fetching the ImageNet weights of ResNet50 ({source})")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        content = S3Store(bucket).get(key)
    except KeyError as error:
        raise WeightsError(f"there are no weights at {source}. Correct CIFAR_RESNET50_WEIGHTS.") from error
    # Processes that start together may fetch it at once: each sees a whole file.
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(content)
    return Path(file.name).replace(path)
