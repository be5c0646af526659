"""What a training or a trial starts from: the images, and a model with its first weights."""

import logging
from dataclasses import dataclass
from typing import TypeVar

import torch
from pydantic import BaseModel, ValidationError

from cifar_tasks.config import TrainConfig
from cifar_tasks.data.images import LabelledImages
from cifar_tasks.data.loading import load_split
from cifar_tasks.data.versions import SPLITS, DatasetVersion, load_version
from cifar_tasks.errors import IntegrityError, WeightsError
from cifar_tasks.models import get_model
from cifar_tasks.models.classifier import ImageClassifier, build_classifier, load_pretrained
from cifar_tasks.settings import Settings
from cifar_tasks.storage.s3 import S3Store
from cifar_tasks.storage.weights import fetch_weights
from cifar_tasks.training.setup import channel_statistics, init_running_stats, sample_indices
from cifar_tasks.training.transfer import without_transfer

Result = TypeVar("Result", bound=BaseModel)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingImages:
    version: DatasetVersion
    train: LabelledImages
    validation: LabelledImages


def load_training_images(dataset_uri: str, config: TrainConfig) -> TrainingImages:
    """The images to train on and to validate with, or the samples of them that the configuration names."""
    settings = Settings()
    store = S3Store(settings.bucket)
    version = load_version(store, dataset_uri)
    train, validation = (load_split(store, version, split, settings.home / "cache") for split in SPLITS[:2])
    return TrainingImages(
        version,
        sample(train, config.train_images, config.seed),
        sample(validation, config.validation_images, config.seed),
    )


def sample(part: LabelledImages, wanted: int | None, seed: int) -> LabelledImages:
    """This many of the images, of each class in proportion, the same for the same seed; all if there are not more."""
    return part if wanted is None or wanted >= len(part) else part.take(sample_indices(part.labels, wanted, seed))


def initial_model(config: TrainConfig, images: TrainingImages) -> tuple[ImageClassifier, TrainConfig, str | None]:
    """The model before training, the configuration that suits its weights, and the SHA-256 of the file that its
    pretrained weights come from; none if its weights are random."""
    torch.manual_seed(config.seed)
    statistics = channel_statistics(images.train.images)
    model = build_classifier(config, len(images.version.classes), *statistics)
    pretrained = _load_pretrained(model, config)
    if pretrained is None:
        init_running_stats(model, images.train.images)
        return model, without_transfer(config), None
    return model, config, pretrained


def _load_pretrained(model: ImageClassifier, config: TrainConfig) -> str | None:
    spec = get_model(config.model)
    if config.transfer.pretrained == "none" or spec.pretrained is None:
        return None
    try:
        path, digest = fetch_weights(spec, Settings(), _log.info)
        load_pretrained(model, spec, path, _log.info)
    except WeightsError as error:
        if config.transfer.pretrained == "required":
            raise
        _log.warning("%s", error)
        _log.warning("RANDOM WEIGHTS: %s starts untrained; expect a low accuracy from a short training.", spec.title)
        return None
    return digest


def earlier_result(store: S3Store, key: str, kind: type[Result]) -> Result | None:
    """What an earlier try of a step left; none if it left nothing, or if that was damaged since."""
    try:
        return kind.model_validate_json(store.get(key))
    except KeyError:
        return None
    except (ValidationError, IntegrityError) as error:
        _log.warning(
            "%s is damaged or was altered, the step is repeated: %s", store.uri(key), str(error).splitlines()[0]
        )
        return None
