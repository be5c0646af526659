"""What a training or a trial begins with: its images, where they fit, and a model with its first weights."""

import logging
import warnings

import numpy as np
import torch
from numpy.typing import NDArray

from cifar_tasks.config import TrainConfig
from cifar_tasks.data import DatasetVersion, LabelledImages, load_dataset
from cifar_tasks.errors import WeightsError
from cifar_tasks.models import Channels, ImageClassifier, build_classifier, load_imagenet_weights
from cifar_tasks.settings import Settings
from cifar_tasks.storage.s3 import S3Store
from cifar_tasks.training import Split, without_transfer
from cifar_tasks.training.batch_norm import begin_statistics

STATISTICS_BATCH = 256
"""Images that batch norm's running statistics begin with."""

_log = logging.getLogger(__name__)


def sample(part: LabelledImages, wanted: int | None, seed: int) -> LabelledImages:
    """`wanted` of the images, the same for the same seed; all of them if none is said or there are not more."""
    if wanted is None or wanted >= len(part):
        return part
    return part.take(np.sort(np.random.default_rng(seed).permutation(len(part))[:wanted]))


def load_parts(store: S3Store, version: DatasetVersion, config: TrainConfig) -> tuple[LabelledImages, LabelledImages]:
    """The images to train on and to validate with."""
    dataset = load_dataset(store, version, ["train", "validation"], Settings().home / "cache")
    return (
        sample(dataset.train, config.train_images, config.seed),
        sample(dataset.validation, config.validation_images, config.seed),
    )


def as_tensor(images: NDArray[np.uint8]) -> torch.Tensor:
    """The images without a copy. Nothing writes to them: they may be a read-only file that is mapped into memory."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(images)


def on_device(device: torch.device, part: LabelledImages) -> Split:
    """The images on the device, where they fit; else here."""
    images, labels = as_tensor(part.images), torch.from_numpy(part.labels)
    try:
        return Split(images.to(device), labels.to(device))
    except torch.OutOfMemoryError:
        _log.info("GPU memory does not hold %d images: they are moved batch by batch", len(part))
        return Split(images, labels)


def start_model(
    config: TrainConfig, classes: int, train: LabelledImages
) -> tuple[ImageClassifier, TrainConfig, str | None]:
    """The model before its training, the configuration that suits its weights, and the digest of ImageNet's if it
    has those."""
    torch.manual_seed(config.seed)
    model = build_classifier(config, classes, *channel_statistics(train.images))
    imagenet = _imagenet_weights(model, config)
    if imagenet is None:
        every = -(-len(train.images) // STATISTICS_BATCH)  # from all over the data: folders come class by class
        begin_statistics(model, as_tensor(train.images[::every]))
    return model, config if imagenet else without_transfer(config), imagenet


def channel_statistics(images: NDArray[np.uint8]) -> tuple[Channels, Channels]:
    """Mean and deviation of each colour channel, of values 0–1; a channel without contrast counts as deviation 1."""
    values = images.reshape(-1, images.shape[-1])
    count = len(values)
    mean = values.sum(axis=0, dtype=np.float64) / count
    square = np.einsum("ij,ij->j", values, values, dtype=np.float64) / count
    deviation = np.sqrt(np.maximum(square - mean**2, 0))
    return _channels(mean), _channels(np.where(deviation > 0, deviation, 255))


def _channels(values: NDArray[np.float64]) -> Channels:
    red, green, blue = (float(value) / 255 for value in values)
    return red, green, blue


def _imagenet_weights(model: ImageClassifier, config: TrainConfig) -> str | None:
    """Load ImageNet weights where the configuration asks for them; the digest of their file, or none."""
    if config.model == "cnn" or config.pretrained == "none":
        return None
    settings = Settings()
    try:
        return load_imagenet_weights(
            model.network, settings.resnet50_weights, settings.resnet50_weights_sha256, _log.info
        )
    except WeightsError as error:
        if config.pretrained == "required":
            raise
        _log.warning("%s", error)
        _log.warning("RANDOM WEIGHTS: ResNet50 starts without ImageNet; expect a low accuracy from a short training.")
        return None
