"""What a training or a trial starts from: the images, and a model with its first weights."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from pydantic import BaseModel, ValidationError

from cifar_tasks.config import TrainConfig, with_values
from cifar_tasks.data.images import LabelledImages
from cifar_tasks.data.loading import load_split
from cifar_tasks.data.versions import SPLITS, DatasetVersion, load_version
from cifar_tasks.errors import IntegrityError, ModelSkipped, WeightsError
from cifar_tasks.models import builtin, get_model
from cifar_tasks.models.classifier import ImageClassifier, build_classifier, check_export, load_pretrained
from cifar_tasks.settings import Settings
from cifar_tasks.storage.s3 import S3Store
from cifar_tasks.storage.weights import fetch_weights
from cifar_tasks.tracking.champion_weights import ChampionWeights, load_champion_weights
from cifar_tasks.training.setup import channel_statistics, init_running_stats, sample_indices
from cifar_tasks.training.transfer import without_transfer

RANDOM = "random"
"""Of weights: neither pretrained nor the champion's."""
BLACK, WHITE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
"""Statistics of no images, for a network that is not trained."""

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


def initial_model(
    config: TrainConfig, images: TrainingImages, start: ChampionWeights | None = None
) -> tuple[ImageClassifier, TrainConfig, str]:
    """The model before training, the configuration that suits its weights, and what its weights are.

    They are the champion's, pretrained or random. Weights of a champion with layers of another size are not used.
    """
    torch.manual_seed(config.seed)
    statistics = channel_statistics(images.train.images)
    model = build_classifier(config, len(images.version.classes), *statistics)
    config = with_values(config, {"input_size": model.input_size})
    if start:
        misfit = load_champion_weights(model, start)
        if misfit is None:
            return model, with_values(config, {"head_epochs": 0}), start.describe()  # its head is trained already
        _log.warning("%s does not start from the champion but from the recipe: %s", config.model, misfit)
    weights = pretrained_weights(config)
    if weights is None:
        init_running_stats(model, images.train.images)
        return model, without_transfer(config), RANDOM
    path, digest = weights
    load_pretrained(model, config, path, _log.info)
    return model, config, f"pretrained (SHA-256 {digest})"


def check_model(config: TrainConfig, version: DatasetVersion, start: ChampionWeights | None = None) -> None:
    """Before anything is trained: whether the weights that it starts from are available, and whether a network that
    does not come with the product can be exported, as it must be to be saved.

    Raises `WeightsError`, `ModelSkipped` or `ConfigError`.
    """
    if start is None:
        pretrained_weights(config)
    if not get_model(config.model).builder.startswith(f"{builtin.__name__}."):
        model = build_classifier(config, len(version.classes), BLACK, WHITE)
        check_export(model, config.model, version.image_size)


def pretrained_weights(config: TrainConfig) -> tuple[Path, str] | None:
    """The verified file that this training starts from, and its SHA-256; none if its weights are random.

    Raises `WeightsError` if it is not available, and `ModelSkipped` where the configuration says to do without the
    model then.
    """
    spec = get_model(config.model)
    if config.transfer.pretrained == "none" or spec.pretrained is None:
        return None
    try:
        return fetch_weights(spec, Settings(), _log.info)
    except WeightsError as error:
        if config.transfer.pretrained == "required":
            raise
        raise ModelSkipped(f"{config.model} is not trained: {error}") from error


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
